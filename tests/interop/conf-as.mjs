// Drives `conformance authorization` unattended. Needs Node >= 22 for the suite (npm node@24).
// env: ISSUER CLIENT_ID [CLIENT_SECRET] LOGIN_USER LOGIN_PASS [PORT=3000] [RESOURCE] [SUBMIT] [OUT=dir] [CONFORMANCE=path to conformance/dist/index.js]
// Registered redirect URI of the client must be http://127.0.0.1:$PORT/callback. Exit code: 0 only if the suite says 0 AND both checks are SUCCESS.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { browse } from './browser.mjs';
const E = process.env, port = E.PORT ?? '3000', cb = `http://127.0.0.1:${port}/callback`;
const outDir = E.OUT ?? mkdtempSync(join(tmpdir(), 'conf-as-'));
const args = [E.CONFORMANCE ?? 'node_modules/@modelcontextprotocol/conformance/dist/index.js', 'authorization', '--url', E.ISSUER,
  '--client-id', E.CLIENT_ID, '-p', port, '-o', outDir];
if (E.CLIENT_SECRET) args.push('--client-secret', E.CLIENT_SECRET);
if (E.RESOURCE) args.push('--resource', E.RESOURCE);
const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });  // no --scenario: see notes
let driven, loginError;
createInterface({ input: child.stdout }).on('line', line => {
  process.stderr.write(line + '\n');
  if (!driven && /^https?:\/\/\S*[?&]code_challenge=/.test(line)) {
    driven = browse(line.trim(), cb, { user: E.LOGIN_USER, pass: E.LOGIN_PASS, submit: E.SUBMIT })
      .then(async ({ url, html }) => { if (!url) throw new Error('no redirect: ' + html?.slice(0, 300)); await (await fetch(url)).text(); })
      .catch(e => { loginError = e.message; child.kill(); });   // otherwise the suite would wait 5 minutes
  }
});
const code = await new Promise(r => child.on('close', c => r(c ?? 1)));
const checks = [];
for (const f of readdirSync(outDir, { recursive: true })) if (String(f).endsWith('checks.json')) checks.push(...JSON.parse(readFileSync(join(outDir, String(f)), 'utf8')));
const sum = checks.map(c => ({ id: c.id, status: c.status, errorMessage: c.errorMessage }));
const must = ['authorization-server-metadata', 'authorization-code-grant'];
const ok = code === 0 && !loginError && must.every(id => checks.some(c => c.id === id && c.status === 'SUCCESS'));
console.log(JSON.stringify({ ok, exit: code, loginError, checks: sum, outDir }));
process.exit(ok ? 0 : 1);
