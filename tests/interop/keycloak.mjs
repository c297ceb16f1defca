// Starts Keycloak from its own distribution (KEYCLOAK: the unpacked folder), and calls its
// administration API.
import { spawn } from 'node:child_process';
import { openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Starts it with `features`; `at` is http://localhost:PORT. Its database is in memory. */
export async function keycloak({ folder, port, features, log, more = [] }) {
  const at = `http://localhost:${port}`, file = openSync(log, 'w');
  const child = spawn(join(folder, 'bin/kc.sh'), ['start-dev', '--db=dev-mem', `--features=${features}`, '--http-host=127.0.0.1', `--http-port=${port}`, `--hostname=${at}`, ...more], {
    env: { ...process.env, KC_BOOTSTRAP_ADMIN_USERNAME: 'admin', KC_BOOTSTRAP_ADMIN_PASSWORD: 'admin', JAVA_OPTS_KC_HEAP: '-Xms64m -Xmx700m' },
    stdio: ['ignore', file, file], detached: true,
  });
  // The script starts Java as a child process: end the whole process group.
  const stop = () => { try { process.kill(-child.pid, 'SIGTERM'); } catch { /* it has ended */ } };
  process.on('exit', stop);
  const told = () => readFileSync(log, 'utf8');
  for (let i = 0; !told().includes('Listening on:'); i++) {
    if (i > 1800 || child.exitCode !== null) throw new Error(`Keycloak did not come up:\n${told().slice(-2000)}`);
    await new Promise(r => setTimeout(r, 100));
  }
  let token, until = 0;
  /** One call of the administration API; the id of what was made, or the answer. */
  async function api(method, path, body, type = 'application/json') {
    if (Date.now() > until) {
      const answer = await fetch(`${at}/realms/master/protocol/openid-connect/token`, { method: 'POST', body: new URLSearchParams({ grant_type: 'password', client_id: 'admin-cli', username: 'admin', password: 'admin' }) });
      ({ access_token: token } = await answer.json());
      until = Date.now() + 40_000;
    }
    const answer = await fetch(`${at}/admin/${path}`, { method, headers: { authorization: `Bearer ${token}`, 'content-type': type }, body: typeof body === 'object' ? JSON.stringify(body) : body });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return answer.headers.get('location')?.split('/').at(-1) ?? (text ? JSON.parse(text) : undefined);
  }
  return { at, api, told, stop };
}
