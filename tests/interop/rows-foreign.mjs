// Third-party authorization servers and MCP servers: our IdP issues the ID-JAG, and our client
// redeems it there.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { writeFileSync } from 'node:fs';

export default async function rows({ row, must, idp, admin, login, enrol, here, scratch, freePort, passavant, E }) {
  const file = join(scratch, 'foreign.secret');
  const clientSecret = 'a-secret-of-the-foreign-client-0123456789';
  writeFileSync(file, clientSecret, { mode: 0o600 });
  for (const [party, script, env] of [
    ['Python SDK server', 'ras-python.py', {}],
    ['FastMCP', 'ras-fastmcp.py', {}],
  ]) {
    await row(party, 'its identity assertion as RAS: registered agent and enrolled installation; list, call, step-up', async () => {
      const PORT = String(await freePort());
      const child = spawn(E.PYTHON, [join(here, 'python', script)], {
        env: { ...process.env, PORT, IDP_ISSUER: idp, CLIENT_ID: 'acme-agent', CLIENT_SECRET: clientSecret, ...env }, stdio: ['ignore', 'pipe', 'pipe'],
      });
      let out = '', err = '';
      child.stdout.on('data', c => { out += c; });
      child.stderr.on('data', c => { err += c; });
      try {
        for (let i = 0; !/^ready .*\n/m.test(out); i++) {
          must(i < 300 && child.exitCode === null, `it did not come up: ${err}`);
          await new Promise(r => setTimeout(r, 100));
        }
        const [, issuer, resource] = /^ready (\S+) (\S+)\n/m.exec(out);
        admin('server', 'add', issuer, '--name', party);
        admin('resource', 'add', resource, '--server', issuer, '--name', party, '--scopes', 'read write');
        const connect = (id, client) => admin('connection', 'add', `${script}-${id}`, '--client', client, '--audience', issuer, '--ras-client-id', 'acme-agent', '--resource', resource, '--scopes', 'read write', '--group', 'engineering');
        connect('agent', 'desk-agent');
        connect('installations', 'passavant');
        const use = (home, title) => {
          must(passavant(home, 'tools', resource).includes('note_write'), 'tools');
          passavant(home, 'call', resource, 'note_write', JSON.stringify({ title, text: 'hello' }));
          must(JSON.parse(passavant(home, 'call', resource, 'note_read', JSON.stringify({ title }))).text === 'hello', 'what was written is not there');
        };
        const registered = join(scratch, `${script}-agent`);
        const done = await login('erin', registered, '--insecure-storage', '--ras-client', `${issuer}=acme-agent:${file}`);
        must(done.code === 0, done.out + done.err);
        use(registered, 'by the agent');
        // It does not support metadata documents, so the secret is stored on the computer once.
        const home = join(scratch, `${script}-desk`);
        await enrol('erin', home);
        must(passavant(home, 'servers').includes(`passavant secret ${issuer} acme-agent`), 'servers does not say what is missing');
        passavant(home, 'secret', issuer, 'acme-agent', '--secret-file', file);
        use(home, 'by the installation');
        return `issuer ${issuer}`;
      } finally {
        child.kill();
      }
    });
  }
}
