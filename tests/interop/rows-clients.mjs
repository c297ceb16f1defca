// Unmodified third-party MCP clients against our IdP, RAS and MCP server: Python SDK, Go SDK, MCP
// Inspector. (The TypeScript and Rust SDKs are in run.mjs.)
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { browse } from './browser.mjs';

export default async function rows({ row, run, json, must, version, idp, canvas, secret, password, admin, fresh, here, scratch, port, E }) {
  const draw = label => ({ TOOL: 'canvas_draw', TOOL_ARGS: JSON.stringify({ canvas: 'interop', shape: { kind: 'text', x: 1, y: 2, label } }) });
  const toCanvas = {
    IDP_ISSUER: idp, IDP_CLIENT_ID: 'desk-agent', IDP_CLIENT_SECRET: secret('idp'),
    RAS_ISSUER: canvas.ras, RAS_CLIENT_ID: 'acme-canvas', RAS_CLIENT_SECRET: secret('canvas'), MCP_URL: canvas.mcp,
  };
  const stepped = report => {
    must(report.scopes.join() === 'canvas.read,canvas.read canvas.write', `no step-up: ${report.scopes}`);
    must(report.result.shapes.length > 0 && report.tools.includes('canvas_draw'), JSON.stringify(report));
  };
  for (const [PROTOCOL, RAS_AUTH] of [['legacy', 'client_secret_post'], ['2026-07-28', 'client_secret_basic']]) {
    await row('Python SDK', `IdentityAssertionOAuthProvider, ${PROTOCOL}, ${RAS_AUTH}: list, call, step-up`, () => {
      const report = json(run(E.PYTHON, [join(here, 'python/xaa.py')], { ...toCanvas, ...draw('Python'), ID_TOKEN: fresh(), SCOPE: 'canvas.read', JAG_SCOPE: 'canvas.read canvas.write', PROTOCOL, RAS_AUTH }));
      stepped(report);
      return `mcp ${report.version}, ${report.protocol}`;
    });
  }
  for (const PROTOCOL of ['2025-11-25', '2026-07-28']) {
    // The SDK repeats the whole flow after a 403; its driver has to add the scopes that the
    // challenge names.
    await row('Go SDK', `extauth.EnterpriseHandler, ${PROTOCOL}: list, call, step-up (scopes by the caller)`, () => {
      const report = json(run(E.GO_XAA, [], { ...toCanvas, ...draw('Go'), ID_TOKEN: fresh(), PROTOCOL }));
      stepped(report);
      must(report.protocol === PROTOCOL, report.protocol);
      return report.version;
    });
  }
  await row('Go SDK', 'extauth.PerformOIDCLogin, then the same', async () => {
    const child = spawn(E.GO_XAA, [], { env: { ...process.env, ...toCanvas, ...draw('Go login') } });
    let out = '', err = '', visit;
    child.stdout.on('data', c => { out += c; });
    child.stderr.on('data', c => {
      err += c;
      const url = /^(https?:\S+)\n/m.exec(err)?.[1];
      if (url) visit ??= browse(url, new URL(url).searchParams.get('redirect_uri'), { user: 'erin', pass: password('erin') }).then(done => child.stdin.end(`${done.url}\n`), error => { child.kill(); err += error; });
    });
    const code = await new Promise(r => child.on('close', r));
    must(code === 0, out + err);
    stepped(json(out));
  });
  // What the company refuses is final: each client shows the code for it, and none goes another way to a token.
  await row('TypeScript, Python, Go and Rust SDKs', '`access_denied` at the IdP: each ends with it, and nobody asks the authorization server for anything', () => {
    const connections = JSON.parse(admin('connection', 'list')).filter(({ idp_client_id, audience }) => idp_client_id === 'desk-agent' && audience === canvas.ras).map(({ id }) => id);
    must(connections.length > 0, 'no connection');
    const ID_TOKEN = fresh(), of = (program, args, env) => [program, args, { ...toCanvas, ...draw('refused'), ID_TOKEN, SCOPE: 'canvas.read', ...env }];
    const programs = {
      TypeScript: of(process.execPath, [join(here, 'ts-xaa.mjs')], { PROTOCOL: '2026-07-28' }),
      Python: of(E.PYTHON, [join(here, 'python/xaa.py')], { JAG_SCOPE: 'canvas.read', PROTOCOL: 'legacy', RAS_AUTH: 'client_secret_basic' }),
      Go: of(E.GO_XAA, [], { PROTOCOL: '2025-11-25' }),
      Rust: of(E.RMCP_CLIENT, [], {}),
    };
    const trail = (...args) => JSON.parse(admin('audit', '--limit', '1000', ...args)), at = Math.max(0, ...trail().map(({ id }) => id)), began = Math.floor(Date.now() / 1000);
    connections.forEach(id => admin('connection', 'disable', id));
    try {
      for (const [name, [program, args, env]] of Object.entries(programs)) {
        const { status, stdout, stderr } = spawnSync(program, args, { env: { ...process.env, ...env }, encoding: 'utf8', timeout: 60_000 });
        must(status !== 0 && /access_denied/.test(stdout + stderr), `${name}: ${status} ${(stdout + stderr).slice(0, 1500)}`);
      }
    } finally {
      connections.forEach(id => admin('connection', 'enable', id));
    }
    const rows = trail('--client', 'desk-agent', '--event', 'token_exchange', '--outcome', 'refused').filter(({ id }) => id > at);
    must(rows.length >= 4, `${rows.length} refusals on record`);
    const there = JSON.parse(admin('--ras', 'canvas', 'audit', '--limit', '1000')).filter(({ event, at: when }) => ['jwt_bearer', 'authorize', 'registration', 'authorization_code'].includes(event) && when > began);
    must(there.length === 0, `at the authorization server: ${JSON.stringify(there.slice(0, 3))}`);
  });
  // The Inspector considers an ID token expired a minute early: with a lifetime of 30 s it
  // refreshes before each use.
  admin('client', 'add', 'Inspector', '--id', 'inspector', '--redirect-uri', 'http://127.0.0.1/oauth/callback', '--id-token-lifetime', '30', '--secret-out', join(scratch, 'inspector.secret'));
  admin('connection', 'add', 'inspector-canvas', '--client', 'inspector', '--audience', canvas.ras, '--ras-client-id', 'acme-canvas', '--resource', canvas.mcp, '--scopes', 'canvas.read canvas.write', '--group', 'engineering');
  for (const PROTOCOL of ['legacy', 'modern']) {
    // Its command line has no step-up: it asks for all scopes at once.
    await row('MCP Inspector', `command line, ${PROTOCOL}: sign-in, list, call, refresh (it cannot step up)`, () => {
      const report = json(run(process.execPath, [join(here, 'inspector.mjs')], {
        ...toCanvas, ...draw('Inspector'), IDP_CLIENT_ID: 'inspector', IDP_CLIENT_SECRET: readFileSync(join(scratch, 'inspector.secret'), 'utf8'),
        LOGIN_USER: 'erin', LOGIN_PASS: password('erin'), CALLBACK: `http://127.0.0.1:${port + 100}/oauth/callback`, PROTOCOL,
      }));
      must(report.steps[1].includes('no sign-in') && report.scopes[1] === 'canvas.read canvas.write', JSON.stringify(report));
      const refreshed = JSON.parse(admin('audit', '--client', 'inspector', '--limit', '100')).filter(r => r.event === 'refresh_token' && r.outcome === 'granted');
      must(refreshed.length > 0, 'it did not refresh the ID token');
      return version('@modelcontextprotocol/inspector');
    });
  }
}
