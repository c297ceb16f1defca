// `passavant guard` and `[[gateway]]` in front of third-party MCP servers: the conformance suite's
// server scenarios directly and through the gateway, the reference servers, a second hop, and the
// company's audit trail.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';

export default async function rows({ row, run, must, startDemo, enrol, passavant, freePort, isFree, version, node24, conformance, suite, here, scratch, shots, E }) {
  const company = await startDemo();
  const { idp, canvas } = company;
  const ended = [];
  process.on('exit', () => ended.forEach(child => child.kill('SIGTERM')));
  /** Starts a program, and waits until something listens on its port. */
  async function start(name, program, args, port, env = {}) {
    // Log to a file: nothing would read a pipe while a row waits for a program.
    const log = join(scratch, `${name.replace(/[^\w]+/g, '-')}.log`), file = openSync(log, 'w');
    const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', file, file] });
    const told = () => readFileSync(log, 'utf8');
    ended.push(child);
    for (let i = 0; await isFree(port); i++) {
      must(i < 300 && child.exitCode === null, `${name} did not come up:\n${told()}`);
      await new Promise(r => setTimeout(r, 100));
    }
    return { child, told };
  }
  /** An MCP server behind `passavant guard`, which the company's people may reach. */
  async function guarded(name, upstream, ...more) {
    const command = Array.isArray(upstream);
    let port;
    do port = await freePort(); while (!(await isFree(port + 1)));
    const url = `http://127.0.0.1:${port}/mcp`, ras = `http://127.0.0.1:${port}`;
    const data = join(scratch, `guard-${name}`);
    const { told } = await start(`passavant guard ${name}`, E.PASSAVANT, ['guard', ...(command ? [] : ['--upstream', upstream]), '--resource', url, '--trust', idp, '--name', name, '--data', data, ...more, ...(command ? ['--', ...upstream] : [])], port);
    // Run the commands that it prints for the company's IT.
    const commands = told().split('\n').filter(line => /^ +passavant admin (server|resource|connection) add/.test(line));
    must(commands.length === 3, told());
    for (const command of commands) {
      const words = [...command.trim().matchAll(/'([^']*)'|(\S+)/g)].map(m => m[1] ?? m[2]).slice(2);
      company.admin(...words.map(word => (word === 'guarded' ? `guarded-${name}` : word)));
    }
    const admin = (...args) => run(E.PASSAVANT, ['admin', '--config', join(data, 'passavant.toml'), ...args]);
    return { url, ras, data, admin, told };
  }
  let homes = 0;
  const signedIn = async () => {
    const home = join(scratch, `gateway-${++homes}`);
    await enrol('erin', home, { company });
    return home;
  };

  const at = await freePort();
  await start('the everything server', E.PYTHON, ['-m', 'mcp_everything_server', '--port', String(at), '--log-level', 'ERROR'], at, { PYTHONPATH: E.EVERYTHING });
  const straight = `http://127.0.0.1:${at}/mcp`;
  const everything = await guarded('everything', straight);

  // ---------- conformance: the same scenarios pass ----------
  const checks = folder => {
    const found = new Map();
    for (const name of readdirSync(folder)) {
      const scenario = name.replace(/^server-/, '').replace(/-\d{4}-\d\d-\d\dT.*$/, '');
      const all = JSON.parse(readFileSync(join(folder, name, 'checks.json')));
      found.set(scenario, all.map(c => `${c.id}: ${c.status}`).sort());
    }
    return found;
  };
  for (const [wire, scenarios, least] of [['2025-11-25', 33, 80], ['2026-07-28', 50, 160]]) {
    await row('MCP conformance', `server --requirements ${wire}: straight and through the gateway`, async () => {
      const AUTH = `Bearer ${passavant(await signedIn(), 'token', everything.url).trim()}`;
      const results = {};
      for (const [way, url] of [['straight', straight], ['gateway', everything.url]]) {
        const out = join(scratch, 'server-suite', wire, way);
        mkdirSync(out, { recursive: true });
        run(node24, ['--import', join(here, 'conformance-auth.mjs'), conformance, 'server', '--url', url, '--requirements', wire, '-o', out], { AUTH });
        results[way] = checks(out);
      }
      const names = [...results.straight.keys()].sort();
      must(names.length === scenarios, `${names.length} scenarios instead of ${scenarios}: the suite changed`);
      const mark = list => `${list.filter(c => c.endsWith('SUCCESS')).length}/${list.filter(c => /SUCCESS|FAILURE|WARNING/.test(c)).length}`;
      const lines = names.map(name => `          ${name.padEnd(52)} ${mark(results.straight.get(name)).padStart(6)} ${mark(results.gateway.get(name) ?? []).padStart(8)}`);
      console.log(`          ${`${suite}, server, ${wire}`.padEnd(52)} straight  gateway\n${lines.join('\n')}`);
      const different = names.filter(name => String(results.straight.get(name)) !== String(results.gateway.get(name)));
      must(different.length === 0, different.map(name => `${name}\n  straight ${results.straight.get(name)}\n  gateway  ${results.gateway.get(name)}`).join('\n'));
      const good = [...results.gateway.values()].flat().filter(c => c.endsWith('SUCCESS')).length;
      must(good >= least, `only ${good} checks succeed`);
      return `${names.length} scenarios, ${good} checks, the same`;
    });
  }

  // ---------- the reference server in TypeScript ----------
  const tsAt = await freePort();
  await start('the TypeScript reference server', process.execPath, [join(here, 'node_modules/@modelcontextprotocol/server-everything/dist/index.js'), 'streamableHttp'], tsAt, { PORT: String(tsAt) });
  const reference = await guarded('reference', `http://127.0.0.1:${tsAt}/mcp`, '--allow', 'echo', '--allow', 'get-*=reference.read', '--block-changed-tools');
  const party = `server-everything ${version('@modelcontextprotocol/server-everything')}`;
  await row(party, 'behind `passavant guard`: per-tool scopes and step-up, the rest denied and not listed', async () => {
    must(/The MCP server answers; it calls itself \S+/.test(reference.told()), reference.told());
    const home = await signedIn();
    const tools = JSON.parse(passavant(home, 'tools', reference.url, '--json'));
    const names = (tools.tools ?? tools).map(tool => tool.name).sort();
    must(names.includes('echo') && names.every(name => name === 'echo' || name.startsWith('get-')), names.join());
    must(passavant(home, 'call', reference.url, 'echo', '{"message":"hello"}').includes('hello'), 'echo');
    must(passavant(home, 'call', reference.url, 'get-sum', '{"a":2,"b":3}').includes('5'), 'get-sum, by step-up');
    let refused = '';
    try { passavant(home, 'call', reference.url, 'trigger-long-running-operation', '{}'); } catch (error) { refused = error.message; }
    must(refused.includes('No rule of this gateway allows this tool'), refused);
    for (let i = 0; i < 40 && !reference.admin('--ras', 'guard', 'audit', '--outcome', 'refused').includes('operation.no_rule'); i++) await new Promise(r => setTimeout(r, 100));
    const trail = reference.admin('--ras', 'guard', 'audit', '--limit', '100');
    must(/mcp_call +granted .*target=get-sum/.test(trail) && /mcp_call +refused .*operation.no_rule/.test(trail), trail);
    must(/echo +approved/.test(reference.admin('gateway', 'tools')), reference.admin('gateway', 'tools'));
    return `${names.length} of its tools`;
  });
  for (const protocol of ['legacy', 'auto']) {
    await row(`TypeScript SDK ${version('@modelcontextprotocol/client')}`, `CrossAppAccessProvider, ${protocol}, through \`passavant guard\` to ${party}`, () => {
      const secrets = name => readFileSync(join(scratch, name), 'utf8').trim();
      if (protocol === 'legacy') {
        reference.admin('--ras', 'guard', 'client', 'add', 'Desk agent', '--id', 'desk-at-guard', '--secret-out', join(scratch, 'desk-at-guard.secret'));
        company.admin('connection', 'add', 'desk-guarded', '--client', 'desk-agent', '--ras-client-id', 'desk-at-guard', '--audience', reference.ras, '--resource', reference.url, '--scopes', 'mcp reference.read', '--everyone');
      }
      const tokens = JSON.parse(run(process.execPath, [join(here, 'rp.mjs')], { ISSUER: idp, CLIENT_ID: 'desk-agent', CLIENT_SECRET: company.secret('idp'), LOGIN_USER: 'erin', LOGIN_PASS: company.password('erin'), SKIP: 'revoke,refresh,userinfo,introspect,logout' }).trim().split('\n').at(-1));
      const report = JSON.parse(run(process.execPath, [join(here, 'ts-xaa.mjs')], {
        IDP_ISSUER: idp, IDP_CLIENT_ID: 'desk-agent', IDP_CLIENT_SECRET: company.secret('idp'), ID_TOKEN: tokens.id_token,
        RAS_CLIENT_ID: 'desk-at-guard', RAS_CLIENT_SECRET: secrets('desk-at-guard.secret'), RAS_ISSUER: reference.ras,
        MCP_URL: reference.url, TOOL: 'get-sum', TOOL_ARGS: '{"a":20,"b":22}', PROTOCOL: protocol,
      }).trim().split('\n').at(-1));
      must(report.jags.length === 2 && report.token.scope === 'mcp reference.read', `no step-up: ${JSON.stringify(report.token)}`);
      return `${report.protocol}, scope ${report.token.scope}`;
    });
  }

  // ---------- servers that speak over standard input and output, or by the transport of 2024 ----------
  const files = `server-filesystem ${version('@modelcontextprotocol/server-filesystem')}`;
  await row(files, 'a command behind `passavant guard`: a process for each session, only the allowed tools, it ends with the session', async () => {
    const folder = join(scratch, 'files');
    mkdirSync(folder);
    writeFileSync(join(folder, 'note.txt'), 'kept in a file');
    const server = join(here, 'node_modules/@modelcontextprotocol/server-filesystem/dist/index.js');
    const behind = await guarded('files', [process.execPath, server, folder], '--allow', 'read_*', '--allow', 'list_*=files.list');
    const home = await signedIn();
    const list = JSON.parse(passavant(home, 'tools', behind.url, '--json'));
    const names = (list.tools ?? list).map(tool => tool.name);
    must(names.includes('read_text_file') && names.every(name => /^(read|list)_/.test(name)), names.join());
    must(passavant(home, 'call', behind.url, 'read_text_file', JSON.stringify({ path: join(folder, 'note.txt') })).includes('kept in a file'), 'read_text_file');
    must(passavant(home, 'call', behind.url, 'list_directory', JSON.stringify({ path: folder })).includes('note.txt'), 'list_directory, by step-up');
    let refused = '';
    try { passavant(home, 'call', behind.url, 'write_file', JSON.stringify({ path: join(folder, 'other.txt'), content: 'x' })); } catch (error) { refused = error.message; }
    must(refused.includes('No rule of this gateway allows this tool') && !existsSync(join(folder, 'other.txt')), refused);
    // Each process ends with its session.
    const processes = () => readdirSync('/proc').filter(id => /^\d+$/.test(id)).filter(id => { try { const words = readFileSync(`/proc/${id}/cmdline`, 'utf8').split('\0'); return words.includes(server) && words.at(-2) === folder && !words.includes('guard'); } catch { return false; } });
    const auth = { authorization: `Bearer ${passavant(home, 'token', behind.url).trim()}`, accept: 'application/json, text/event-stream', 'content-type': 'application/json' };
    const begun = await fetch(behind.url, { method: 'POST', headers: auth, body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'row', version: '1' } } }) });
    await begun.text();
    const session = begun.headers.get('mcp-session-id');
    must(session && processes().length === 1, `${processes().length} processes of one session`);
    await fetch(behind.url, { method: 'DELETE', headers: { ...auth, 'mcp-session-id': session } });
    for (let i = 0; i < 50 && processes().length; i++) await new Promise(r => setTimeout(r, 100));
    must(processes().length === 0, `${processes().length} processes are left`);
    return `${names.length} of its tools`;
  });
  await row(party, 'by HTTP+SSE (2024-11-05) behind `passavant guard`: found at the start, tools, call, step-up, the rest denied', async () => {
    const at = await freePort();
    await start('the reference server by SSE', process.execPath, [join(here, 'node_modules/@modelcontextprotocol/server-everything/dist/index.js'), 'sse'], at, { PORT: String(at) });
    const behind = await guarded('sse', `http://127.0.0.1:${at}/sse`, '--allow', 'echo', '--allow', 'get-*=reference.read');
    must(behind.told().includes('SSE'), behind.told());
    const home = await signedIn();
    must(passavant(home, 'call', behind.url, 'echo', '{"message":"hello"}').includes('hello'), 'echo');
    must(passavant(home, 'call', behind.url, 'get-sum', '{"a":2,"b":3}').includes('5'), 'get-sum, by step-up');
    let refused = '';
    try { passavant(home, 'call', behind.url, 'trigger-long-running-operation', '{}'); } catch (error) { refused = error.message; }
    must(refused.includes('No rule of this gateway allows this tool'), refused);
  });

  // ---------- the SDK's Express app, which decodes bodies by the charset in the request ----------
  for (const [generation, name] of [['1', '@modelcontextprotocol/sdk'], ['2', '@modelcontextprotocol/express']]) {
    await row(`createMcpExpressApp ${version(name)}`, 'behind `passavant guard`: allowed tools answer; a body in another charset reaches nothing', async () => {
      const at = await freePort();
      await start(`express ${generation}`, process.execPath, [join(here, 'express-server.mjs')], at, { GENERATION: generation, PORT: String(at) });
      const straight = `http://127.0.0.1:${at}/mcp`;
      const behind = await guarded(`express-${generation}`, straight, '--allow', 'echo');
      const home = await signedIn();
      must(passavant(home, 'call', behind.url, 'echo', '{"message":"hello"}').includes('said hello'), 'echo');
      const token = passavant(home, 'token', behind.url).trim();
      // Decoded as UTF-7, the text at the end is a second `name`, and the second one counts.
      const utf7 = '+ACIAfQAsACIAbgBhAG0AZQAiADoAIgB3AGkAcABlAF8AYQBsAGwAIgAsACIAYQByAGcAdQBtAGUAbgB0AHMAIgA6AHsAfQAsACIAcQAiADoAewAiAGsAIgA6ACI-';
      const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{},"_meta":{"z":"${utf7}"}}}`;
      const ask = async (url, type) => {
        const headers = { authorization: `Bearer ${token}`, accept: 'application/json, text/event-stream', 'content-type': type, 'mcp-protocol-version': '2025-11-25' };
        const answer = await fetch(url, { method: 'POST', headers, body });
        return `${answer.status} ${await answer.text()}`;
      };
      const plain = 'application/json', coded = 'application/json; charset=utf-7';
      must((await ask(straight, coded)).includes('EVERYTHING WIPED'), 'straight, the second name counts no more: this row proves nothing');
      must(/^200 .*said/s.test(await ask(behind.url, plain)), 'the same bytes as what they are');
      for (const type of [coded, 'application/json; charset="UTF-7"', 'application/json; charset=utf-8; charset=utf-7', 'application/json; charset=utf-16']) {
        const answer = await ask(behind.url, type);
        must(answer.startsWith('415 '), `${type}: ${answer}`);
      }
      return 'straight it calls the other tool, through the gateway it is 415';
    });
  }

  // ---------- people and clients without cross-app access ----------
  const outsiders = await guarded('outsiders', `http://127.0.0.1:${tsAt}/mcp`, '--sign-in', 'guard-rp', '--registration', '--allow', 'echo', '--allow', 'get-*=reference.read');
  company.admin('client', 'add', 'Guard sign-in', '--id', 'guard-rp', '--redirect-uri', `${outsiders.ras}/callback`, '--jwks-uri', `${outsiders.ras}/jwks`);
  const person = { LOGIN_USER: 'erin', LOGIN_PASS: company.password('erin') };
  await row(`TypeScript SDK ${version('@modelcontextprotocol/client')}`, 'ordinary OAuth: registers itself, sign-in at the company, a page that asks, step-up, tool call', () => {
    const report = JSON.parse(run(process.execPath, [join(here, 'ts-outsider.mjs')], { ...person, MCP_URL: outsiders.url, TOOL: 'get-sum', TOOL_ARGS: '{"a":1,"b":2}' }).trim().split('\n').at(-1));
    must(report.ok && report.registered && report.refresh && JSON.stringify(report.answer).includes('3'), JSON.stringify(report));
    must(report.pages.some(page => page.startsWith(`POST ${idp}/authorize`)) && report.pages.filter(page => page.startsWith(`POST ${outsiders.ras}/authorize`)).length === 2 && report.before !== report.scope, report.pages.join('\n'));
    return `scope ${report.before}, then ${report.scope}`;
  });
  await row('MCP conformance', 'authorization: metadata and code grant of the RAS behind `passavant guard`', async () => {
    const port = await freePort();
    outsiders.admin('--ras', 'guard', 'client', 'add', 'Suite', '--id', 'suite', '--redirect-uri', `http://127.0.0.1:${port}/callback`, '--public');
    const done = JSON.parse(run(node24, [join(here, 'conf-as.mjs')], { ...person, ISSUER: outsiders.ras, CLIENT_ID: 'suite', SUBMIT: 'answer=allow', PORT: String(port), RESOURCE: outsiders.url, CONFORMANCE: conformance }).trim().split('\n').at(-1));
    must(done.ok, JSON.stringify(done));
    return done.checks.filter(c => c.status === 'SUCCESS').map(c => c.id).join(', ');
  });
  await row('Chromium', 'the page that asks: by keyboard, no is the default, four looks', async () => {
    const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync);
    must(executablePath, 'chromium is not installed');
    const { chromium: driver } = await import('playwright-core');
    const browser = await driver.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-sync', '--no-first-run'] });
    const application = createServer((_, answer) => answer.end('back at the application')).listen(0, '127.0.0.1');
    try {
      await new Promise(r => application.once('listening', r));
      const callback = `http://127.0.0.1:${application.address().port}/callback`;
      outsiders.admin('--ras', 'guard', 'client', 'add', 'Notes for <b>Teams</b>', '--id', 'desktop', '--public', '--redirect-uri', 'http://127.0.0.1/callback');
      const url = `${outsiders.ras}/authorize?` + new URLSearchParams({ response_type: 'code', client_id: 'desktop', redirect_uri: callback, scope: 'mcp reference.read', state: 's', resource: outsiders.url, code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM', code_challenge_method: 'S256' });
      const problems = [];
      for (const [name, width, colorScheme] of [['wide-light', 1200, 'light'], ['wide-dark', 1200, 'dark'], ['narrow-light', 320, 'light'], ['narrow-dark', 320, 'dark']]) {
        const page = await (await browser.newContext({ viewport: { width, height: 800 }, colorScheme })).newPage();
        page.on('console', message => { if (['error', 'warning'].includes(message.type())) problems.push(message.text()); });
        await page.goto(url);
        await page.fill('#username', 'erin');
        await page.fill('#password', company.password('erin'));
        await page.keyboard.press('Enter');
        await page.waitForSelector('button[value=allow]');
        await page.screenshot({ path: join(shots, `consent-${name}.png`) });
        must((await page.textContent('h1')).includes('Notes for <b>Teams</b>'), 'the name is read as markup');
        must(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}: it scrolls sideways`);
        must(await page.evaluate(() => document.activeElement.value) === 'deny', 'an Enter too many would say yes');
        if (name === 'wide-light') await page.keyboard.press('Enter');
        else { await page.keyboard.press('Shift+Tab'); await page.keyboard.press('Enter'); }
        await page.waitForURL(`${callback}**`);
        const back = new URL(page.url()).searchParams;
        must(back.get('iss') === outsiders.ras && (name === 'wide-light' ? back.get('error') === 'access_denied' : back.get('code')), page.url());
        await page.context().close();
      }
      must(problems.length === 0, 'the console says: ' + problems.join('; '));
    } finally {
      application.close();
      await browser.close();
    }
    return `screenshots in ${shots}`;
  });

  // ---------- a gateway of the company's own ----------
  await row('passavant serve', '[[gateway]]: its own token for the server behind it (XAA again), one trail at the IdP, the record by OTLP', async () => {
    const folder = join(scratch, 'company-gateway');
    mkdirSync(folder, { mode: 0o700 });
    let port;
    do port = await freePort(); while (!(await isFree(port + 1)));
    const url = `http://127.0.0.1:${port}/canvas`;
    for (const file of ['passavant.key', 'passavant.admin-secret']) writeFileSync(join(folder, file), Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64url'), { mode: 0o600 });
    // The gateway's MCP server, one more of the vendor's RAS; the vendor's own server is behind it.
    company.admin('--ras', 'canvas', 'resource', 'add', url, '--scopes', 'canvas.read canvas.write', '--default-scopes', 'canvas.read');
    company.admin('resource', 'add', url, '--server', canvas.ras, '--scopes', 'canvas.read canvas.write');
    company.admin('connection', 'add', 'front', '--client', 'passavant', '--audience', canvas.ras, '--resource', url, '--scopes', 'canvas.read canvas.write', '--everyone');
    company.admin('client', 'add', 'Company gateway', '--id', 'front', '--resource', url, '--secret-out', join(folder, 'idp.secret'));
    company.admin('--ras', 'canvas', 'client', 'add', 'Acme front', '--id', 'acme-front', '--resource', url, '--secret-out', join(folder, 'ras.secret'));
    company.admin('connection', 'add', 'hop', '--client', 'front', '--ras-client-id', 'acme-front', '--audience', canvas.ras, '--resource', canvas.mcp, '--scopes', 'canvas.read', '--everyone');
    // An OTLP collector that keeps everything it receives.
    const told = [];
    const collector = createServer(async (request, answer) => {
      let body = '';
      for await (const chunk of request) body += chunk;
      if (request.url === '/v1/logs') told.push(body);
      answer.end();
    }).listen(0, '127.0.0.1');
    await new Promise(r => collector.once('listening', r));
    writeFileSync(join(folder, 'passavant.toml'), `
[telemetry]
otlp_endpoint = "http://127.0.0.1:${collector.address().port}"
[keys]
file = "passavant.key"
[admin]
listen = "127.0.0.1:${port + 1}"
secret_file = "passavant.admin-secret"
[[gateway]]
listen = "127.0.0.1:${port}"
folder = "gateway"
durability = "disk"
report = { issuer = "${idp}", client_id = "front", secret_file = "idp.secret" }
[[gateway.route]]
resource = "${url}"
upstream = "${canvas.mcp}"
authorization_server = "${canvas.ras}"
require = ["canvas.read"]
introspection = { client_id = "acme-front", secret_file = "ras.secret" }
upstream_client = { idp = "${idp}", client_id = "front", secret_file = "idp.secret", authorization_server = "${canvas.ras}", ras_client_id = "acme-front", ras_secret_file = "ras.secret" }
[[gateway.route.rule]]
tools = ["canvas_list", "canvas_draw"]
`);
    run(E.PASSAVANT, ['check', '--config', join(folder, 'passavant.toml')]);
    await start('the company gateway', E.PASSAVANT, ['serve', '--config', join(folder, 'passavant.toml')], port);
    const home = await signedIn();
    must(passavant(home, 'call', url, 'canvas_list').includes('names'), 'canvas_list');
    let refused = '';
    try { passavant(home, 'call', url, 'canvas_read', '{"canvas":"x"}'); } catch (error) { refused = error.message; }
    must(refused.includes('No rule'), refused);
    let calls = [];
    for (let i = 0; i < 100 && calls.length < 2; i++) {
      await new Promise(r => setTimeout(r, 100));
      const rows = JSON.parse(company.admin('audit', '--limit', '200'));
      calls = rows.filter(r => r.event === 'mcp_call' && r.details.method === 'tools/call');
    }
    must(calls.length === 2, `${calls.length} calls reached the IdP`);
    const exported = words => told.some(body => words.every(word => body.includes(word)));
    for (let i = 0; i < 100 && !exported(['"kind":"decision"', '"target":"canvas_list"']); i++) await new Promise(r => setTimeout(r, 100));
    must(exported(['"kind":"decision"', '"target":"canvas_list"', 'passavant.mcp_call']), `no decision among ${told.length} OTLP exports`);
    must(exported(['"target":"canvas_read"', '"outcome":"refused"']) && exported(['"kind":"outcome"']), 'a refusal or an outcome was not exported');
    collector.close();
    const rows = JSON.parse(company.admin('audit', '--limit', '200'));
    const [bad, good] = calls;
    const exchange = rows.find(r => r.event === 'token_exchange' && r.details.jti === good.details.txn);
    must(exchange && exchange.person === good.person && exchange.client === good.client, `no way from the call back to the grant: ${JSON.stringify(good)}`);
    must(good.details.target === 'canvas_list' && bad.outcome === 'refused' && bad.details.reason === 'operation.no_rule', JSON.stringify(calls));
    const hop = rows.find(r => r.event === 'token_exchange' && r.client === 'front');
    must(hop?.person === good.person && hop.details.txn === good.details.txn, 'the second hop is not on record');
    // Access that is revoked at the RAS ends here, because of introspection.
    const token = passavant(home, 'token', url).trim();
    const ask = async () => (await fetch(url, { method: 'POST', headers: { authorization: `Bearer ${token}`, accept: 'application/json, text/event-stream', 'content-type': 'application/json' }, body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'row', version: '1' } } }) })).status;
    const baseline = await ask();
    must(baseline === 200, `the baseline: ${baseline}`);
    run(E.PASSAVANT, ['admin', '--url', `http://127.0.0.1:${company.port + 5}`, '--secret-file', join(company.folder, 'admin.secret'), '--ras', 'canvas', 'resource', 'delete', url]);
    let status = 0;
    for (let i = 0; i < 40 && status !== 401; i++) {
      await new Promise(r => setTimeout(r, 100));
      status = await ask();
    }
    must(status === 401, `what was taken away at the RAS goes on working: ${status}`);
    return 'login → ID-JAG → token → tool call, and back';
  });
  for (const child of ended) child.kill('SIGTERM');
}
