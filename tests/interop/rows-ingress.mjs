// `passavant serve` as in a cluster: behind nginx, which terminates TLS, in a network namespace
// where every listener except administration has an address that is not loopback. (Loopback
// addresses are trusted everywhere, so tests on loopback would not show this.) Needs nginx,
// openssl, iproute2 and namespaces.
import { execFile, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { request } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
const E = process.env, own = fileURLToPath(import.meta.url), at = name => join(E.INGRESS, name), log = name => readFileSync(at(`${name}.log`), 'utf8');
const desk = '10.77.0.9', nginx = '10.77.0.2', passavant = '10.77.0.3', upstream = '10.77.0.4', stranger = '10.77.0.7', attacker = '10.77.0.8';
const idp = 'https://idp.acme.test', ras = 'https://mcp.acme.test', mcp = `${ras}/mcp`, passphrase = 'a long passphrase of erin';
const must = (condition, text) => { if (!condition) throw new Error(text); }, sleep = ms => new Promise(r => setTimeout(r, ms));
/** The log is written beside what it is about. */
const logged = async text => { for (let i = 0; !log('passavant').includes(text); i++, await sleep(20)) must(i < 100, `the log does not say "${text}"`); };
export default async function rows({ row, run, scratch }) {
  const found = spawnSync('nginx', ['-v'], { encoding: 'utf8' });
  const party = `nginx ${/nginx\/(\S+)/.exec(found.stderr)?.[1] ?? ''}`.trim(), folder = join(scratch, 'ingress'), to = name => join(folder, name);
  if (spawnSync('unshare', [process.getuid() === 0 ? '-nm' : '-rnm', '--pid', '--fork', 'true']).status !== 0) return console.log('skipped nginx as ingress                  this machine gives nobody namespaces of their own');
  let child, answers;
  /** This file again, in namespaces that end with it. */
  function begin() {
    must(found.status === 0, 'nginx is missing: apt-get install nginx-light');
    mkdirSync(folder);
    // The company's own certificate authority, and a certificate for nginx.
    writeFileSync(to('openssl.cnf'), '[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\n[leaf]\nbasicConstraints=CA:FALSE\nsubjectAltName=DNS:*.acme.test\n');
    for (const [name, ...signer] of [['ca'], ['leaf', '-CA', to('ca.pem'), '-CAkey', to('ca.key')]])
      run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-config', to('openssl.cnf'), '-subj', `/CN=${name}`, '-extensions', name, '-keyout', to(`${name}.key`), '-out', to(`${name}.pem`), ...signer]);
    writeFileSync(to('hosts'), `127.0.0.1 localhost\n${nginx} idp.acme.test mcp.acme.test slow.acme.test\n`);
    // All addresses are on the interface lo, because not every kernel supports another kind;
    // connections come from the first one.
    const setUp = `mount --bind '${to('hosts')}' /etc/hosts; ip link set lo up; for a in ${[desk, nginx, passavant, upstream, stranger, attacker].join(' ')}; do ip address add $a/24 dev lo; done; exec '${process.execPath}' '${own}'`;
    child = spawn('unshare', [process.getuid() === 0 ? '-nm' : '-rnm', '--pid', '--fork', '--kill-child', 'sh', '-ec', setUp], { env: { ...E, INGRESS: folder, NODE_EXTRA_CA_CERTS: to('ca.pem') }, stdio: ['pipe', 'pipe', openSync(to('inside.log'), 'w')] });
    process.on('exit', () => child.kill('SIGKILL'));
    for (const part of [child, child.stdin]) part.on('error', () => {}); // then no answer comes
    answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }
  for (const [step, what] of [
    ['start', 'before `passavant serve`: check, mounted secrets, settings of the environment, probes; no loopback'],
    ['use', 'sign-in, servers and a call through it; the person is on record'],
    ['strangers', "nobody is let in past it; a forged X-Forwarded-For is nobody else's address"],
    ['stream', 'a stream that is quiet for longer than it waits, and SIGHUP meanwhile'],
  ]) await row(party, what, async () => {
    if (!child) begin();
    child.stdin.write(`${step}\n`);
    const { value } = await answers.next();
    must(value, `there is no namespace, or it ended: ${existsSync(to('inside.log')) && readFileSync(to('inside.log'), 'utf8')}`);
    const { told, error } = JSON.parse(value);
    return must(!error, error) ?? told;
  });
  child?.stdin.end();
}
// ---------- in the namespace ----------
const children = {}, env = { ...E };
async function start(name, program, args, host, port) {
  const file = openSync(at(`${name}.log`), 'w'), child = children[name] = spawn(program, args, { env, stdio: ['ignore', file, file] });
  for (let i = 0; !(await new Promise(r => { const socket = connect(port, host, () => r(socket.end())).on('error', () => r()); })); i++, await sleep(50)) must(i < 200 && child.exitCode === null, `${name} did not come up:\n${log(name)}`);
}
/** Without blocking this process: the MCP server is in it. */
const run = (program, args, input = '') => new Promise((resolve, reject) => execFile(program, args, { env, timeout: 30_000 }, (error, out, err) => (error ? reject(new Error(`${error.message}\n${out}${err}`)) : resolve(out))).stdin.end(input));
const admin = (...args) => run(E.PASSAVANT, ['admin', '--config', at('passavant.toml'), ...args], passphrase);
/** From an address of our choice, which `fetch` cannot: the status, and the pieces of the answer with their times. */
const ask = (url, { from = desk, headers = {}, body } = {}) => new Promise((resolve, reject) => request(url, { method: body ? 'POST' : 'GET', localAddress: from, headers, agent: false }, async answer => {
  const pieces = [], began = Date.now();
  for await (const piece of answer) pieces.push({ ms: Date.now() - began, text: String(piece) });
  resolve({ status: answer.statusCode, pieces });
}).on('error', reject).end(body));
/** In the clear, past nginx: the status, or nothing where the connection was closed. */
const past = (port, from, path = '/healthz', host = 'mcp.acme.test') => new Promise(resolve => {
  let text = '';
  const socket = connect({ host: passavant, port, localAddress: from }, () => socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nX-Forwarded-For: ${nginx}\r\nConnection: close\r\n\r\n`));
  socket.on('data', piece => { text += piece; }).on('error', () => {}).on('close', () => resolve(text.split(' ')[1]));
});
/** An MCP server without sessions, in this process: what matters is what stands before it. */
async function mcpServer() {
  const { McpServer } = await import('@modelcontextprotocol/sdk/server/mcp.js');
  const { StreamableHTTPServerTransport } = await import('@modelcontextprotocol/sdk/server/streamableHttp.js');
  createServer(async (message, answer) => {
    const server = new McpServer({ name: 'slow', version: '1' }), transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
    for (const [name, ms, text] of [['whoami', 0, `for ${message.headers['x-user']}`], ['wait', 3300, 'waited']])
      server.registerTool(name, { description: name }, () => sleep(ms).then(() => ({ content: [{ type: 'text', text }] })));
    await server.connect(transport).then(() => transport.handleRequest(message, answer));
  }).listen(3001, upstream);
}
const steps = {
  async start() {
    for (const name of ['data', 'secrets', 'nginx']) mkdirSync(at(name), { mode: 0o700 });
    const key = () => Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64url');
    for (const [name, text, mode] of [['secrets/key', key(), 0o440], ['secrets/admin', key(), 0o440], ['secrets/database', `sqlite:${at('data/idp.db')}\n`, 0o440]]) writeFileSync(at(name), text, { mode });
    Object.assign(env, { PASSAVANT_EXTRA_ROOTS: at('ca.pem'), PASSAVANT_HOME: at('home'), PASSAVANT__IDP__FAILURES_PER_MINUTE: '10', PASSAVANT__IDP__DATABASE_FILE: at('secrets/database'), ISSUER: idp, LOGIN_USER: 'erin', LOGIN_PASS: passphrase });
    // The MCP server uses https: the gateway accepts plain http on loopback only.
    writeFileSync(at('passavant.toml'), `trusted_proxies = ["${nginx}/32"]\nmounted_secrets = true\nhealth = { listen = "${passavant}:7409" }
keys = { file = "secrets/key" }\nadmin = { listen = "127.0.0.1:7400", secret_file = "secrets/admin" }\noutbound = { extra_roots = ["ca.pem"] }
idp = { issuer = "${idp}", listen = "${passavant}:7401", database = "sqlite:overridden.db", name = "Acme", tls = "proxy" }
ras = [{ name = "mcp", issuer = "${ras}", listen = "${passavant}:7402", database = "sqlite:data/ras.db", tls = "proxy" }]
[[gateway]]\nlisten = "${passavant}:7402"\nfolder = "data/gateway"\ntls = "proxy"\n[[gateway.route]]\nresource = "${mcp}"\nupstream = "https://slow.acme.test/mcp"
authorization_server = "${ras}"\nheaders = { X-User = "subject" }\nsse_keepalive_seconds = 1\n[[gateway.route.rule]]\ntools = ["*"]\n`);
    // Buffering has its default: the gateway disables it for streams with a header.
    const site = (name, to, more = '') => `server { listen ${nginx}:443 ssl; server_name ${name}.acme.test; location / { proxy_pass http://${to}; ${more} } }`;
    writeFileSync(at('nginx.conf'), `daemon off; worker_processes 1; user root; pid ${at('nginx/pid')}; error_log stderr; events {}
http { access_log off; ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(name => `${name}_temp_path ${at(`nginx/${name}`)};`).join(' ')}
ssl_certificate ${at('leaf.pem')}; ssl_certificate_key ${at('leaf.key')}; proxy_bind ${nginx}; proxy_http_version 1.1; proxy_set_header Connection "";
proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
${site('idp', `${passavant}:7401`)} ${site('mcp', `${passavant}:7402`, 'proxy_read_timeout 2s;')} ${site('slow', `${upstream}:3001`)} }`);
    await run(E.PASSAVANT, ['check', '--config', at('passavant.toml')]);
    await mcpServer();
    await start('passavant', E.PASSAVANT, ['serve', '--config', at('passavant.toml')], passavant, 7409);
    await start('nginx', 'nginx', ['-c', at('nginx.conf')], nginx, 443);
    for (const path of ['/healthz', '/readyz'])
      for (const seen of [await past(7409, desk, path), (await ask(idp + path)).status, (await ask(ras + path)).status]) must(Number(seen) === 200, `${path}: ${seen}`);
    must(existsSync(at('data/idp.db')) && !existsSync(at('overridden.db')), 'the database is not the one of the environment');
    // In the kernel's notation: 127.0.0.1:7400, and the addresses of nginx, passavant and the MCP
    // server.
    const listening = ['tcp', 'tcp6'].flatMap(name => readFileSync(`/proc/self/net/${name}`, 'utf8').split('\n')).map(line => line.trim().split(/\s+/)).filter(words => words[3] === '0A').map(words => words[1]);
    must(listening.length === 6 && listening.every(address => /^(0100007F:1CE8|0[234]004D0A:)/.test(address)), `${listening} listen`);
  },
  async use() {
    for (const words of [
      'user add erin', `server add ${ras} --name Slow`, `resource add ${mcp} --server ${ras} --name Slow`, `connection add all --client passavant --audience ${ras} --resource ${mcp} --everyone`,
      `--ras mcp resource add ${mcp}`, `--ras mcp trust add ${idp} --just-in-time --installations`,
    ]) await admin(...words.split(' '));
    await run(process.execPath, [join(own, '../sign-in.mjs')]);
    must((await run(E.PASSAVANT, ['servers'])).includes(mcp), 'servers');
    const person = /for (\S+)/.exec(await run(E.PASSAVANT, ['call', mcp, 'whoami']))?.[1], told = async () => (await admin('--ras', 'mcp', 'audit')).split('\n').some(line => line.includes('target=whoami') && line.includes(person));
    for (let i = 0; !(await told()); i++, await sleep(100)) must(person && i < 20, `a call of ${person} is not on record`);
  },
  async strangers() {
    for (const [from, status] of [[nginx, '200'], [desk], [stranger]])
      for (const port of [7401, 7402]) must(await past(port, from) === status, `${from} at ${port} past nginx: not ${status ?? 'closed'}`);
    await logged('did not come from one of trusted_proxies');
    // A proxy that forwards its own name for the server in `Host`, as many do by default.
    must(await past(7402, nginx, '/mcp', 'gateway_pool') === '421', 'a host name of others is served');
    await logged('gateway_pool');
    // Failures are counted and recorded by address, which shows which address is believed.
    const fail = async (from, told) => (await ask(`${idp}/token`, { from, headers: { 'content-type': 'application/x-www-form-urlencoded', ...(told && { 'x-forwarded-for': told }) }, body: 'grant_type=refresh_token&refresh_token=x&client_id=nobody&client_secret=x' })).status;
    const seen = [];
    for (let i = 0; i < 12; i++) seen.push(await fail(attacker, [desk, `198.51.100.${i}`, `${desk}, ${nginx}`][i % 3]));
    must(seen.indexOf(429) === 10, `somebody who says to be another each time: ${seen}`);
    const rows = JSON.parse(await admin('--json', 'audit', '--outcome', 'refused', '--limit', '10')).filter(row => row.details.reason?.startsWith('client.'));
    must(rows.length === 10 && rows.every(row => row.details.address === attacker), JSON.stringify(rows.map(row => row.details)));
    for (const [from, told] of [[desk], [stranger], [stranger, attacker]]) must(await fail(from, told) === 401, `${from}, who says ${told}, waits for what another did`);
  },
  async stream() {
    const headers = { authorization: `Bearer ${(await run(E.PASSAVANT, ['token', mcp])).trim()}`, accept: 'application/json, text/event-stream', 'content-type': 'application/json', 'mcp-protocol-version': '2025-11-25' };
    setTimeout(() => children.passavant.kill('SIGHUP'), 1500);
    const { pieces } = await ask(mcp, { headers, body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'wait', arguments: {} } }) });
    const comments = pieces.filter(piece => piece.text === ':\n\n').map(piece => piece.ms);
    must(comments.length >= 2 && pieces.at(-1).text.includes('waited'), JSON.stringify(pieces));
    must((await ask(`${idp}/healthz`)).status === 200 && children.passavant.signalCode === null, 'SIGHUP ended it');
    return `comments after ${comments.join(', ')} ms`;
  },
};
if (E.INGRESS) {
  for await (const step of createInterface({ input: process.stdin })) console.log(JSON.stringify(await steps[step]().then(told => ({ told }), error => ({ error: String(error.stack) }))));
  process.exit(); // ends everything in the namespace
}
