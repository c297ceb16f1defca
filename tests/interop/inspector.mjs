// Cross-App Access end to end with the command line of @modelcontextprotocol/inspector 2.12: a sign-in
// at the IdP, a list of tools, and a call that uses what the sign-in left. Node >= 20 here; the
// Inspector wants Node >= 22.19.
// env: IDP_ISSUER IDP_CLIENT_ID [IDP_CLIENT_SECRET] LOGIN_USER LOGIN_PASS RAS_CLIENT_ID
//  [RAS_CLIENT_SECRET] MCP_URL TOOL [TOOL_ARGS=json]
//  SCOPE (else all that the server's metadata names)   PROTOCOL=legacy|auto|modern
//  CALLBACK (default http://127.0.0.1:6276/oauth/callback, which the IdP client must be allowed)
//  NODE (the node that runs the Inspector)   INSPECTOR (its folder)   TRACE=1 (its standard error)
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { browse } from './browser.mjs';

const E = process.env;
const modules = join(dirname(fileURLToPath(import.meta.url)), 'node_modules');
const inspector = E.INSPECTOR ?? join(modules, '@modelcontextprotocol/inspector');
const node = E.NODE ?? join(modules, 'node/bin/node');
const callback = E.CALLBACK ?? 'http://127.0.0.1:6276/oauth/callback';
const home = mkdtempSync(join(tmpdir(), 'inspector-'));
const report = { ok: false, version: JSON.parse(readFileSync(join(inspector, 'package.json'))).version, scopes: [], steps: [] };

const write = (name, content) => { writeFileSync(join(home, name), JSON.stringify(content), { mode: 0o600 }); return join(home, name); };
const clientConfig = write('client.json', {
  enterpriseManagedAuth: { idp: { issuer: E.IDP_ISSUER, clientId: E.IDP_CLIENT_ID, clientSecret: E.IDP_CLIENT_SECRET || undefined } },
});
const config = write('mcp.json', {
  mcpServers: {
    server: {
      type: 'streamable-http', url: E.MCP_URL,
      oauth: { clientId: E.RAS_CLIENT_ID, clientSecret: E.RAS_CLIENT_SECRET || undefined, scopes: E.SCOPE || undefined, enterpriseManaged: true },
    },
  },
});

/** Signs in at the URL that the Inspector prints, and brings the answer back to it. */
async function visit(url) {
  if (!/^https?:/.test(url)) throw new Error(`it wants a visit to ${url}`);
  const done = await browse(url, callback, { user: E.LOGIN_USER, pass: E.LOGIN_PASS });
  await fetch(done.url);
}

/** Runs the Inspector; signs in where it asks for it. Gives what it printed, parsed. */
async function run(what, ...args) {
  const child = spawn(node, [
    join(inspector, 'clients/launcher/build/index.js'), '--cli', '--config', config, '--server', 'server',
    '--client-config', clientConfig, '--callback-url', callback, '--protocol-era', E.PROTOCOL ?? 'legacy', '--format', 'json', ...args,
  ], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // No variables of the desktop, so that no browser opens; the URL is printed anyway.
    env: { PATH: E.PATH, HOME: home, NODE_OPTIONS: E.NODE_OPTIONS ?? '', BROWSER: 'true', MCP_AUTO_OPEN_ENABLED: 'true', MCP_INSPECTOR_SECRET_STORE: 'file' },
  });
  const timer = setTimeout(() => child.kill(), 60_000);
  let out = '', err = '', signIn;
  child.stdout.on('data', c => { out += c; });
  child.stderr.on('data', c => {
    err += c;
    if (E.TRACE) process.stderr.write(c);
    const url = /^Please navigate to: (\S+)\n/m.exec(err)?.[1];
    if (url) signIn ??= visit(url).catch(error => { child.kill(); return error; });
  });
  const code = await new Promise((resolve, reject) => { child.on('error', reject); child.on('close', resolve); });
  clearTimeout(timer);
  const mistake = await signIn;
  if (mistake) throw mistake;
  report.steps.push(`${what}: ${signIn ? 'signed in' : 'no sign-in'}, exit ${code}`);
  if (code !== 0) throw new Error(`${what}: ${err}`);
  return JSON.parse(out).result;
}

/** The scope of the access token that it keeps. */
function scope() {
  const secrets = readFileSync(join(home, '.mcp-inspector/secrets.json'), 'utf8');
  const claims = [...secrets.matchAll(/eyJ[\w-]+\.(eyJ[\w-]+)\.[\w-]+/g)].map(jwt => JSON.parse(Buffer.from(jwt[1], 'base64url')));
  return claims.find(claim => claim.aud === E.MCP_URL)?.scope;
}

try {
  report.tools = (await run('list', '--method', 'tools/list')).tools.map(tool => tool.name);
  report.scopes.push(scope());
  const call = ['--method', 'tools/call', '--tool-name', E.TOOL, '--tool-args-json', E.TOOL_ARGS ?? '{}'];
  const result = await run('call', ...call);
  report.result = result.structuredContent ?? result;
  report.scopes.push(scope());
  report.ok = true;
} catch (error) {
  report.error = error.message;
} finally {
  rmSync(home, { recursive: true });
}
console.log(JSON.stringify(report));
process.exit(report.ok ? 0 : 1);
