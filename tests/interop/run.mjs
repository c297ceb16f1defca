// Other people's packages against a running `passavant demo`, and the command line against it. Prints a
// row for each party and ends with `N passed, N failed`. Needs: npm install in this folder, chromium.
// env: PASSAVANT (binary), CONFORMANCE_CLIENT, RMCP_CLIENT (test binaries), PYTHON (with python/requirements.txt),
// GO_XAA (built from go-xaa), SCHEMATHESIS (its `st`), EVERYTHING (the MCP Python SDK's everything server), PROTECTED_SERVER and TESTS (see rows-book.mjs), SCREENSHOTS (folder, kept), ONLY (a part: clients, foreign, parties, conformance, desk, others, places, hosts, bridge, gateway, session, ingress, administration, upstream, accounts, book, load), ROW (only rows whose text has this in it)
// env of long runs: LONG_HOSTS (long/ with its packages), KEYCLOAK (an unpacked Keycloak), OAUTH2_PROXY (a binary)
import { spawn, spawnSync, execFileSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, readFileSync, readdirSync, existsSync, writeFileSync, chmodSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { browse, goOn } from './browser.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const E = process.env;
const need = ['PASSAVANT', 'CONFORMANCE_CLIENT', 'RMCP_CLIENT', 'PYTHON', 'GO_XAA', 'EVERYTHING', 'SCHEMATHESIS'].filter(name => !existsSync(E[name] ?? ''));
if (need.length) { console.error(`missing: ${need.join(', ')} must name built binaries`); process.exit(1); }
const node24 = join(here, 'node_modules/node/bin/node');
const conformance = join(here, 'node_modules/@modelcontextprotocol/conformance/dist/index.js');
process.setMaxListeners(100); // one for each program that a row has started
delete process.env.DBUS_SESSION_BUS_ADDRESS; // no keychain but the one a row starts
const scratch = mkdtempSync(join(tmpdir(), 'passavant-interop-'));
const shots = E.SCREENSHOTS ?? join(scratch, 'screenshots');
mkdirSync(shots, { recursive: true });
// The name that builds before the renaming used.
const former = /const NAME: &str = "(\w+)"/.exec(readFileSync(join(here, '../../crates/proto/src/formerly.rs'), 'utf8'))[1];
const version = name => JSON.parse(readFileSync(join(here, 'node_modules', name, 'package.json'))).version;

let passed = 0, failed = 0;
let part = 'own';
async function row(party, what, work) {
  if (E.ONLY && !E.ONLY.split(',').includes(part)) return;
  if (E.ROW && !`${party} ${what}`.includes(E.ROW)) return;
  const started = Date.now();
  try {
    const told = await work();
    passed++;
    console.log(`ok      ${party.padEnd(34)} ${what}${told ? ` — ${told}` : ''} (${Date.now() - started} ms)`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${party.padEnd(34)} ${what}\n        ${String(error.message ?? error).split('\n').join('\n        ')}`);
  }
}
const must = (condition, text) => { if (!condition) throw new Error(text); };

/** Runs a program; its standard output, or an error with all it said. */
function run(program, args, env = {}, input) {
  const done = spawnSync(program, args, { env: { ...process.env, ...env }, input, encoding: 'utf8', timeout: 120_000 });
  if (done.status !== 0) throw new Error(`${program} ${args.join(' ')} exited ${done.status}\n${done.stdout}\n${done.stderr}`);
  return done.stdout;
}
const json = text => JSON.parse(text.trim().split('\n').at(-1));

// ---------- the demo ----------
// Six ports in a row, below the range that the system hands out by itself, and one for the suite.
const isFree = port => new Promise(resolve => {
  const probe = createServer().once('error', () => resolve(false));
  probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
});
async function freePorts() {
  for (let tries = 0; tries < 50; tries++) {
    const base = 10_000 + Math.floor(Math.random() * 20_000);
    const wanted = [0, 1, 2, 3, 4, 5, 100].map(offset => isFree(base + offset));
    if ((await Promise.all(wanted)).every(Boolean)) return base;
  }
  throw new Error('no free ports');
}
/** A company of its own, and how to get at it. */
async function startDemo(...more) {
  const port = await freePorts();
  const demo = spawn(E.PASSAVANT, ['demo', '--json', '--port', String(port), ...more], { stdio: ['ignore', 'pipe', 'pipe'] });
  let told = '';
  demo.stderr.on('data', chunk => { told += chunk; });
  demo.stdout.resume();
  process.on('exit', () => demo.kill('SIGTERM'));
  for (let i = 0; !told.includes('Sign in as'); i++) {
    if (i > 300 || demo.exitCode !== null) { console.error(`the demo did not come up:\n${told}`); process.exit(1); }
    await new Promise(r => setTimeout(r, 100));
  }
  await new Promise(r => setTimeout(r, 100));
  const folder = /PASSAVANT_HOME=(\S+)\/home/.exec(told)[1];
  const at = offset => `http${more.includes('--tls') ? 's' : ''}://localhost:${port + offset}`;
  return {
    pid: demo.pid, port, folder, roots: join(folder, 'ca.pem'), idp: at(0), canvas: { ras: at(1), mcp: `${at(2)}/mcp` }, notes: { ras: at(3), mcp: `${at(4)}/mcp` },
    password: name => new RegExp(`${name} with the password (\\S+)`).exec(told)[1],
    secret: name => readFileSync(join(folder, `${name}.secret`), 'utf8'),
    admin: (...args) => run(E.PASSAVANT, ['admin', '--url', `http://127.0.0.1:${port + 5}`, '--secret-file', join(folder, 'admin.secret'), '--json', ...args]),
  };
}
const { port, folder, idp, canvas, notes, password, secret, admin } = await startDemo();
const ofIdp = { ISSUER: idp, CLIENT_ID: 'desk-agent', CLIENT_SECRET: secret('idp'), LOGIN_USER: 'erin', LOGIN_PASS: password('erin') };

// ---------- openid-client: relying party of the IdP ----------
let tokens;
const rp = env => json(run(process.execPath, [join(here, 'rp.mjs')], { ...ofIdp, ...env }));
const party = `openid-client ${version('openid-client')}`;
await row(party, 'code flow, userinfo, refresh, introspection, revocation (Basic)', () => {
  const report = rp({ AUTH: 'client_secret_basic' });
  must(report.steps.refresh.rotated && report.steps.refresh.id_token && report.steps.refresh.sameSub, 'refresh: ' + JSON.stringify(report.steps.refresh));
  must(report.steps.revoke.refreshAfterwards === 'invalid_grant' && report.steps.revoke.activeAfterwards === false, JSON.stringify(report.steps.revoke));
});
await row(party, 'secret in the body, pushed authorization request', () => {
  must(rp({ AUTH: 'client_secret_post', PAR: '1' }).steps.authorizationUrl.includes('request_uri='), 'the request was not pushed');
});
await row(party, 'token exchange to an ID-JAG', () => {
  const report = rp({ SKIP: 'revoke,refresh', EXCHANGE: JSON.stringify({ audience: notes.ras, resource: notes.mcp }) });
  tokens = report;
  must(report.steps.exchange.header.typ === 'oauth-id-jag+jwt', JSON.stringify(report.steps.exchange));
});
await row(party, 'private_key_jwt with ES256', async () => {
  // Not generateKeyPairSync: some releases of Node hang if such a key is exported during garbage
  // collection.
  const pair = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
  const jwk = async key => { const { kty, crv, x, y, d } = await crypto.subtle.exportKey('jwk', key); return { kty, crv, x, y, ...(d && { d }) }; };
  const [privateJwk, publicJwk] = [await jwk(pair.privateKey), await jwk(pair.publicKey)];
  const kid = randomUUID();
  const file = join(scratch, 'jwks.json');
  writeFileSync(file, JSON.stringify({ keys: [{ ...publicJwk, kid, alg: 'ES256', use: 'sig' }] }));
  admin('client', 'add', 'Key client', '--id', 'key-client', '--redirect-uri', 'http://127.0.0.1/callback', '--jwks-file', file);
  rp({ AUTH: 'private_key_jwt', CLIENT_ID: 'key-client', CLIENT_SECRET: '', PAR: '1', PRIVATE_JWK: JSON.stringify({ ...privateJwk, kid, alg: 'ES256' }) });
});

// ---------- oauth4webapi: judge of our access tokens ----------
await row(`oauth4webapi ${version('oauth4webapi')}`, 'validates our access token (RFC 9068)', async () => {
  const answer = await fetch(`${notes.ras}/token`, {
    method: 'POST',
    headers: { authorization: 'Basic ' + btoa(`acme-notes:${secret('notes')}`) },
    body: new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion: tokens.id_jag }),
  });
  const { access_token } = await answer.json();
  const env = { RAS_ISSUER: notes.ras, ACCESS_TOKEN: access_token, AUDIENCE: notes.mcp, SCOPES: 'notes.read notes.write' };
  const report = json(run(process.execPath, [join(here, 'judge.mjs')], env));
  must(report.ok && report.notes.length === 0, JSON.stringify(report));
  const other = spawnSync(process.execPath, [join(here, 'judge.mjs')], { env: { ...process.env, ...env, AUDIENCE: canvas.mcp }, encoding: 'utf8' });
  must(other.status !== 0, 'the judge accepts another audience: it judges nothing');
});

// ---------- TypeScript SDK ----------
const fresh = () => rp({ SKIP: 'revoke,refresh,userinfo,introspect,logout' }).id_token;
for (const protocol of ['legacy', '2026-07-28']) {
  await row(`TypeScript SDK ${version('@modelcontextprotocol/client')}`, `CrossAppAccessProvider, ${protocol}: list, call, step-up`, () => {
    const report = json(run(process.execPath, [join(here, 'ts-xaa.mjs')], {
      IDP_ISSUER: idp, IDP_CLIENT_ID: 'desk-agent', IDP_CLIENT_SECRET: secret('idp'), ID_TOKEN: fresh(),
      RAS_CLIENT_ID: 'acme-canvas', RAS_CLIENT_SECRET: secret('canvas'), RAS_ISSUER: canvas.ras,
      MCP_URL: canvas.mcp, TOOL: 'canvas_draw', PROTOCOL: protocol,
      TOOL_ARGS: JSON.stringify({ canvas: 'interop', shape: { kind: 'text', x: 1, y: 2, label: protocol } }),
    }));
    must(report.jags.length === 2 && report.token.scope === 'canvas.read canvas.write', 'no step-up: ' + JSON.stringify(report.token));
    return `${report.protocol}, scope ${report.token.scope}`;
  });
}

await row(`TypeScript SDK ${version('@modelcontextprotocol/client')}`, 'CrossAppAccessProvider with its DPoP session: the token is bound, each request brings a proof; list, call, step-up', () => {
  const env = {
    IDP_ISSUER: idp, IDP_CLIENT_ID: 'desk-agent', IDP_CLIENT_SECRET: secret('idp'), ID_TOKEN: fresh(), RAS_CLIENT_ID: 'acme-canvas', RAS_CLIENT_SECRET: secret('canvas'), RAS_ISSUER: canvas.ras,
    MCP_URL: canvas.mcp, TOOL: 'canvas_draw', PROTOCOL: '2026-07-28', TOOL_ARGS: JSON.stringify({ canvas: 'interop', shape: { kind: 'text', x: 1, y: 2, label: 'bound' } }), DPOP: '1', TRACE: '1',
  };
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(here, 'ts-xaa.mjs')], { env: { ...process.env, ...env }, encoding: 'utf8' });
  must(status === 0, stdout + stderr.slice(-2000));
  const report = json(stdout), sent = stderr.split('\n').filter(line => line.startsWith('{')).map(line => JSON.parse(line));
  must(report.token.token_type === 'DPoP' && report.token.scope === 'canvas.read canvas.write', JSON.stringify(report.token));
  const called = sent.filter(({ url, headers }) => url === canvas.mcp && headers.authorization), proofs = new Set(called.map(({ headers }) => headers.dpop));
  must(called.length > 2 && called.every(({ headers }) => headers.authorization.startsWith('DPoP ')) && proofs.size === called.length && !proofs.has(undefined), JSON.stringify(called.map(({ headers }) => Object.keys(headers))));
  return `${called.length} proofs`;
});

// ---------- Rust SDK ----------
for (const subject of ['ID token', 'refresh token']) {
  await row('Rust SDK (rmcp) enterprise client', `by ${subject}, whole flow with tool call`, async () => {
    const env = {
      IDP_ISSUER: idp, IDP_CLIENT_ID: 'desk-agent', IDP_CLIENT_SECRET: secret('idp'),
      RAS_ISSUER: notes.ras, RAS_CLIENT_ID: 'acme-notes', RAS_CLIENT_SECRET: secret('notes'),
      MCP_URL: notes.mcp, SCOPE: 'notes.read notes.write', TOOL: 'note_write',
      TOOL_ARGS: JSON.stringify({ title: 'interop', text: subject }),
    };
    if (subject === 'ID token') env.ID_TOKEN = fresh();
    else env.REFRESH_TOKEN = await refreshToken();
    const report = json(run(E.RMCP_CLIENT, [], env));
    must(report.tools.includes('note_write'), JSON.stringify(report.tools));
  });
}
/** A refresh token, by a code flow of our own. */
async function refreshToken() {
  const verifier = randomUUID() + randomUUID();
  const challenge = Buffer.from(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier))).toString('base64url');
  const redirect_uri = 'http://127.0.0.1:8765/callback';
  const query = new URLSearchParams({ response_type: 'code', client_id: 'desk-agent', redirect_uri, scope: 'openid offline_access', state: 's', code_challenge: challenge, code_challenge_method: 'S256' });
  const { url } = await browse(`${idp}/authorize?${query}`, redirect_uri, { user: 'erin', pass: password('erin') });
  const answer = await fetch(`${idp}/token`, {
    method: 'POST', headers: { authorization: 'Basic ' + btoa(`desk-agent:${secret('idp')}`) },
    body: new URLSearchParams({ grant_type: 'authorization_code', code: url.searchParams.get('code'), redirect_uri, code_verifier: verifier }),
  });
  return (await answer.json()).refresh_token;
}

// ---------- MCP conformance suite ----------
const suite = `MCP conformance ${version('@modelcontextprotocol/conformance')}`;
for (const wire of ['2025-11-25', '2026-07-28']) {
  await row(suite, `client, auth/enterprise-managed-authorization, ${wire}`, () => {
    const out = join(scratch, `conformance-${wire}`);
    // --force, because with --spec-version alone the suite skips extensions and exits 0.
    run(node24, [conformance, 'client', '--command', `exec ${E.CONFORMANCE_CLIENT}`, '--scenario', 'auth/enterprise-managed-authorization', '--spec-version', wire, '--force', '-o', out]);
    const checks = readdirSync(out, { recursive: true }).filter(f => String(f).endsWith('checks.json')).flatMap(f => JSON.parse(readFileSync(join(out, String(f)))));
    for (const id of ['complete-flow-token-exchange', 'complete-flow-jwt-bearer', 'prm-pathbased-requested', 'valid-bearer-token'])
      must(checks.some(c => c.id === id && c.status === 'SUCCESS'), `no success of ${id}`);
    const bad = checks.filter(c => ['FAILURE', 'WARNING'].includes(c.status));
    must(bad.length === 0, JSON.stringify(bad));
    return `${checks.filter(c => c.status === 'SUCCESS').length} checks`;
  });
}
await row(suite, 'authorization: metadata and code grant of the IdP', () => {
  const free = port + 100;
  admin('client', 'add', 'Suite', '--id', 'suite', '--redirect-uri', `http://127.0.0.1:${free}/callback`, '--secret-out', join(scratch, 'suite.secret'));
  const done = json(run(node24, [join(here, 'conf-as.mjs')], { ...ofIdp, CLIENT_ID: 'suite', CLIENT_SECRET: readFileSync(join(scratch, 'suite.secret'), 'utf8'), PORT: String(free), CONFORMANCE: conformance }));
  must(done.ok, JSON.stringify(done));
  return done.checks.filter(c => c.status === 'SUCCESS').map(c => c.id).join(', ');
});

// ---------- the command line ----------
const home = join(scratch, 'home');
const cli = (...args) => run(E.PASSAVANT, args, { PASSAVANT_HOME: home });
/** Drives `passavant login` through the sign-in page, in one browser tab. */
async function signIn(user, home, args, env = {}, pass = password(user)) {
  const child = spawn(E.PASSAVANT, ['login', '--no-browser', ...args], { env: { ...process.env, PASSAVANT_HOME: home, ...env } });
  let out = '', err = '';
  child.stdout.on('data', c => { out += c; });
  child.stderr.on('data', c => { err += c; });
  const ended = new Promise(r => child.on('close', r));
  for (let i = 0; i < 100 && !/https?:\/\/\S+code_challenge/.test(out) && child.exitCode === null; i++) await new Promise(r => setTimeout(r, 50));
  const url = /https?:\/\/\S+code_challenge\S+/.exec(out)?.[0];
  if (url) {
    const callback = new URL(url).searchParams.get('redirect_uri');
    const page = await goOn(await browse(url, callback, { user, pass }));
    if (page.status !== 200) err += `the last page: ${page.status}`;
  }
  return { code: await ended, out, err };
}
/** A sign-in through the client that IT registered, or the one that is kept. */
const login = (user, home, ...more) => signIn(user, home, more.includes('--no-registration') ? more.filter(arg => arg !== '--no-registration') : ['--issuer', idp, '--client-id', 'desk-agent', '--client-secret-file', join(folder, 'idp.secret'),
  '--ras-client', `${canvas.ras}=acme-canvas:${join(folder, 'canvas.secret')}`,
  '--ras-client', `${notes.ras}=acme-notes:${join(folder, 'notes.secret')}`, ...more]);
/** A sign-in that enrols the computer. */
async function enrol(user, home, { args = [], env = {}, company = { idp, password } } = {}) {
  const done = await signIn(user, home, ['--issuer', company.idp, '--insecure-storage', ...args], env, company.password(user));
  must(done.code === 0, done.out + done.err);
  return done;
}
const passavant = (home, ...args) => run(E.PASSAVANT, args, { PASSAVANT_HOME: home });
await row('passavant', 'refuses to keep a sign-in without a keychain unless told', async () => {
  const done = await login('erin', join(scratch, 'none'));
  must(done.code !== 0 && done.err.includes('--insecure-storage'), done.out + done.err);
  must(!existsSync(join(scratch, 'none', 'insecure-profile.json')), 'it wrote a file');
});
await row('passavant', 'login, status, tools, call, step-up, token, inspect, logout', async () => {
  const done = await login('erin', home, '--insecure-storage');
  must(done.code === 0 && done.out.includes('Signed in as erin'), done.out + done.err);
  const file = join(home, 'insecure-profile.json');
  must((await import('node:fs')).statSync(file).mode % 0o1000 === 0o600, 'the file can be read by others');
  must(JSON.parse(cli('status', '--json')).signed_in === true, 'status');
  must(cli('tools', notes.mcp).includes('note_write'), 'tools');
  cli('call', notes.mcp, 'note_write', JSON.stringify({ title: 'cli', text: 'hello' }));
  must(JSON.parse(cli('call', notes.mcp, 'note_read', '{"title":"cli"}')).text === 'hello', 'call');
  const token = cli('token', notes.mcp).trim();
  const inspected = run(E.PASSAVANT, ['inspect'], {}, token);
  must(inspected.includes('access token') && !inspected.includes(token.split('.')[2]), 'inspect');
  chmodSync(file, 0o644);
  const open = spawnSync(E.PASSAVANT, ['status'], { env: { ...process.env, PASSAVANT_HOME: home }, encoding: 'utf8' });
  must(open.status !== 0 && open.stderr.includes('chmod 600'), 'a file that others can read was used');
  chmodSync(file, 0o600);
  must(cli('logout').includes('has ended there'), 'logout');
  const after = spawnSync(E.PASSAVANT, ['tools', notes.mcp], { env: { ...process.env, PASSAVANT_HOME: home }, encoding: 'utf8' });
  must(after.status !== 0 && after.stderr.includes('passavant login'), after.stderr);
});
await row('passavant', 'ten processes at once share one sign-in', async () => {
  const shared = join(scratch, 'shared');
  must((await login('erin', shared, '--insecure-storage')).code === 0, 'login');
  const all = await Promise.all(Array.from({ length: 10 }, () => new Promise(resolve => {
    const child = spawn(E.PASSAVANT, ['tools', notes.mcp], { env: { ...process.env, PASSAVANT_HOME: shared }, stdio: 'ignore' });
    child.on('close', resolve);
  })));
  must(all.every(code => code === 0), `exit codes ${all}`);
});
await row('passavant', 'a refusal says who and why; IT sees the rule', async () => {
  const max = join(scratch, 'max');
  must((await login('max', max, '--insecure-storage')).code === 0, 'login');
  const refused = spawnSync(E.PASSAVANT, ['tools', canvas.mcp], { env: { ...process.env, PASSAVANT_HOME: max }, encoding: 'utf8' });
  must(refused.status !== 0 && refused.stderr === "error: Access to Canvas was refused by Acme's policy: group engineering required. Ask IT.\n", refused.stderr);
  must(admin('audit', '--outcome', 'refused').includes('connection engineering-canvas'), 'audit');
  must(JSON.parse(admin('explain', '--user', 'max', '--client', 'desk-agent', '--resource', canvas.mcp)).granted === false, 'explain');
});
await row('passavant', 'keeps the sign-in in a real keychain (gnome-keyring), and forgets it', async () => {
  const kept = join(scratch, 'kept');
  const bus = spawn('dbus-daemon', ['--session', '--print-address', '--nofork'], { stdio: ['ignore', 'pipe', 'ignore'] });
  let keyring;
  try {
    const address = await new Promise((resolve, reject) => {
      bus.on('error', reject);
      bus.on('close', code => reject(new Error(`dbus-daemon ended (${code})`)));
      bus.stdout.once('data', line => resolve(String(line).trim()));
    });
    Object.assign(process.env, { DBUS_SESSION_BUS_ADDRESS: address });
    keyring = spawn('gnome-keyring-daemon', ['--unlock', '--foreground', '--components=secrets'], { env: { ...process.env, HOME: scratch }, stdio: ['pipe', 'ignore', 'ignore'] });
    keyring.stdin.end('keyring password');
    await new Promise(r => setTimeout(r, 1000));
    const done = await login('erin', kept);
    must(done.code === 0 && done.out.includes('keychain'), done.out + done.err);
    // Whether another process has ended the sign-in is a number, and no secret.
    must(readdirSync(kept).sort().join() === 'generation,lock' && /^\d+$/.test(readFileSync(join(kept, 'generation'), 'utf8')), `files were written: ${readdirSync(kept)}`);
    const inKeychain = (...args) => run(E.PASSAVANT, args, { PASSAVANT_HOME: kept });
    must(inKeychain('tools', notes.mcp).includes('note_write'), 'tools');
    // The keychain item of a build with the earlier name: it is taken over when it is first read,
    // and removed like any other.
    const secretTool = (input, ...args) => execFileSync('secret-tool', args, { input, encoding: 'utf8', stdio: ['pipe', 'pipe', 'ignore'] });
    const item = service => ['service', service, 'username', 'profile'];
    const asBefore = () => {
      secretTool(secretTool('', 'lookup', ...item('passavant')), 'store', '--label', 'x', ...item(former));
      secretTool('', 'clear', ...item('passavant'));
    };
    asBefore();
    must(inKeychain('status').includes('erin') && inKeychain('tools', notes.mcp).includes('note_write'), 'what an earlier build kept is not found');
    must(spawnSync('secret-tool', ['lookup', ...item(former)]).status === 1, 'it is still there under the earlier name');
    asBefore();
    inKeychain('logout', '--forget');
    must(inKeychain('status').includes('Nobody'), 'it was not forgotten');
  } finally {
    delete process.env.DBUS_SESSION_BUS_ADDRESS;
    keyring?.kill();
    bus.kill();
  }
});
await row('passavant demo', '--tls: https with a private CA, the same walk', () => {
  const walk = JSON.parse(run(E.PASSAVANT, ['demo', '--once', '--json', '--tls']));
  must(walk.ok && walk.steps.length === 11 && walk.steps.every(s => s.ok && s.ms >= 0), JSON.stringify(walk));
  return walk.steps.map(s => s.name).join(' ');
});

// ---------- a real browser ----------
const chromium = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync);
await row('Chromium', 'signs in by keyboard, sees a mistake, signs out; four looks', async () => {
  must(chromium, 'chromium is not installed');
  const { chromium: driver } = await import('playwright-core');
  const browser = await driver.launch({ executablePath: chromium, args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-sync', '--no-first-run'] });
  try {
    const problems = [];
    const application = createServer((_, answer) => answer.end('back at the application')).listen(0, '127.0.0.1');
    await new Promise(r => application.once('listening', r));
    const callback = `http://127.0.0.1:${application.address().port}/callback`;
    const url = `${idp}/authorize?` + new URLSearchParams({ response_type: 'code', client_id: 'desk-agent', redirect_uri: callback, scope: 'openid', state: 's', code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM', code_challenge_method: 'S256' });
    for (const [name, width, colorScheme] of [['wide-light', 1200, 'light'], ['wide-dark', 1200, 'dark'], ['narrow-light', 320, 'light'], ['narrow-dark', 320, 'dark']]) {
      const page = await browser.newPage({ viewport: { width, height: 700 }, colorScheme });
      page.on('console', message => { if (['error', 'warning'].includes(message.type()) && !/401/.test(message.text())) problems.push(message.text()); });
      await page.goto(url);
      must(await page.evaluate(() => document.activeElement.id) === 'username', 'the first field has no focus');
      await page.keyboard.type('erin');
      await page.keyboard.press('Tab');
      await page.keyboard.type('wrong');
      await page.keyboard.press('Enter');
      await page.waitForSelector('[role=alert]');
      await page.screenshot({ path: join(shots, `sign-in-mistake-${name}.png`) });
      must(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}: it scrolls sideways`);
      await page.fill('#username', 'erin');
      await page.fill('#password', password('erin'));
      await page.keyboard.press('Tab');
      await page.keyboard.press('Enter');
      await page.waitForURL(`${callback}**`);
      must(new URL(page.url()).searchParams.get('iss') === idp, 'no iss in the answer');
      await page.goto(`${idp}/logout`);
      await page.screenshot({ path: join(shots, `sign-out-${name}.png`) });
      await page.click('button');
      await page.waitForSelector('text=You are signed out');
      await page.goto(url.replace('desk-agent', 'nobody'));
      await page.screenshot({ path: join(shots, `unknown-application-${name}.png`) });
      must((await page.textContent('[role=alert]')).includes('Ask IT'), 'the error page does not say what to do');
      problems.splice(0, problems.length, ...problems.filter(text => !/40[0-9]/.test(text)));
      await page.close();
    }
    application.close();
    must(problems.length === 0, 'the console says: ' + problems.join('; '));
  } finally {
    await browser.close();
  }
  return `screenshots in ${shots}`;
});

// ---------- the other parts ----------
const suiteName = suite;
// None is given twice: who got it may not listen yet.
const given = new Set();
const freePort = async () => { for (;;) { const at = 10_000 + Math.floor(Math.random() * 20_000); if (!given.has(at) && await isFree(at)) { given.add(at); return at; } } };
const kit = { startDemo, row, run, json, must, version, idp, canvas, notes, secret, password, admin, fresh, login, enrol, passavant, freePort, isFree, suite: suiteName, node24, conformance, here, scratch, shots, folder, port, former, E };
for (part of ['clients', 'foreign', 'parties', 'conformance', 'desk', 'others', 'places', 'hosts', 'bridge', 'gateway', 'session', 'ingress', 'administration', 'upstream', 'accounts', 'book', 'load'].filter(name => !E.ONLY || E.ONLY.split(',').includes(name))) {
  await (await import(`./rows-${part}.mjs`)).default(kit);
}

console.log(`\n${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
