// `passavant connect` between third-party clients and servers: the same script directly and through
// the bridge, and servers that misbehave.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { guard } from './bridge/guarded.mjs';

/** Runs a program to its end without holding up the guard in this process. */
function finish(program, args, env) {
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '', err = '';
  child.stdout.on('data', c => { out += c; });
  child.stderr.on('data', c => { err += c; });
  return new Promise(resolve => child.on('close', code => resolve({ code, out, err })));
}

export default async function rows({ row, must, startDemo, enrol, freePort, isFree, scratch, here, version, E }) {
  const company = await startDemo();
  const { canvas } = company;
  // The MCP project's everything server, behind a guard of its own.
  const [at, front, faulty] = [await freePort(), await freePort(), await freePort()];
  const server = spawn(E.PYTHON, ['-m', 'mcp_everything_server', '--port', String(at), '--log-level', 'ERROR'], { env: { ...process.env, PYTHONPATH: E.EVERYTHING }, stdio: 'ignore' });
  process.on('exit', () => server.kill('SIGKILL'));
  for (let i = 0; await isFree(at); i++) {
    must(i < 300 && server.exitCode === null, 'the everything server did not come up');
    await new Promise(r => setTimeout(r, 100));
  }
  const [everything, scripted] = [front, faulty].map(port => `http://localhost:${port}/mcp`);
  for (const url of [everything, scripted]) {
    company.admin('--ras', 'canvas', 'resource', 'add', url, '--scopes', 'canvas.read', '--default-scopes', 'canvas.read');
    company.admin('resource', 'add', url, '--server', canvas.ras, '--scopes', 'canvas.read');
  }
  company.admin('connection', 'add', 'bridge', '--client', 'passavant', '--audience', canvas.ras, '--resource', everything, '--resource', scripted, '--scopes', 'canvas.read', '--everyone');
  await guard({ port: front, upstream: `http://127.0.0.1:${at}/mcp`, issuer: canvas.ras, scopes: 'canvas.read' });

  let count = 0;
  const signedIn = async () => {
    const home = join(scratch, `bridge-${++count}`);
    await enrol('erin', home, { company });
    return home;
  };
  const ts = version('@modelcontextprotocol/client');
  const drivers = [['TypeScript SDK', ts, process.execPath, 'bridge/ts-diff.mjs'], ['Python SDK', '2.3.0', E.PYTHON, 'bridge/py-diff.py']];
  for (const [party, release, program, script] of drivers) for (const [name, url] of [['everything server', everything], ['rmcp server', canvas.mcp]]) for (const ERA of ['legacy', '2026-07-28', 'auto']) {
    await row(`${party} through the bridge`, `${name}, ${ERA}: straight and bridged are the same`, async () => {
      const SERVER = url === everything ? 'everything' : 'canvas';
      const env = { PASSAVANT_HOME: await signedIn(), SERVER, ERA, MCP_URL: url, ...(SERVER === 'canvas' && { SCOPE: 'canvas.read canvas.write' }) };
      const { out, err } = await finish(program, [join(here, script)], env);
      must(out.trim(), err);
      const report = JSON.parse(out);
      must(report.ok, (report.differences ?? []).map(d => `${d.step}: ${JSON.stringify(d.direct ?? d.error)?.slice(0, 300)}, bridged ${JSON.stringify(d.bridged)?.slice(0, 300)}`).join('\n'));
      must(SERVER !== 'canvas' || report.scopes.join() === 'canvas.read,canvas.read canvas.write', `no step-up: ${report.scopes}`);
      return `${release}, ${report.compared} steps`;
    });
  }
  await row(`TypeScript SDK ${ts}`, '`connect --all`: every server in one, tools under server__tool names, the list follows the catalog', async () => {
    const { Client } = await import('@modelcontextprotocol/client');
    const { StdioClientTransport } = await import('@modelcontextprotocol/client/stdio');
    const client = new Client({ name: 'row', version: '1' });
    const ofCanvas = act => JSON.parse(company.admin('connection', 'list')).map(connection => connection.id).filter(id => /canvas/.test(id)).forEach(id => company.admin('connection', act, id));
    try {
      let changes = 0;
      client.setNotificationHandler('notifications/tools/list_changed', () => { changes++; });
      await client.connect(new StdioClientTransport({ command: E.PASSAVANT, args: ['connect', '--all', '--no-browser'], env: { ...process.env, PASSAVANT_HOME: await signedIn() }, stderr: 'ignore' }));
      const names = async () => (await client.listTools()).tools.map(tool => tool.name).sort();
      const before = await names();
      must(before.includes('canvas__canvas_draw') && before.includes('notes__note_write') && before.some(name => /__test_simple_text$/.test(name)) && before.every(name => /^[a-zA-Z0-9_-]{1,50}$/.test(name)), before.join());
      const text = result => JSON.stringify(result.structuredContent ?? result.content);
      await client.callTool({ name: 'notes__note_write', arguments: { title: 'all', text: 'in one' } });
      must(text(await client.callTool({ name: 'notes__note_read', arguments: { title: 'all' } })).includes('in one'), 'written and read, by step-up');
      const wrong = await client.callTool({ name: 'notes__nothing', arguments: {} }).then(text, error => String(error.message));
      must(wrong.includes('there is no tool'), wrong);
      // IT disables the connection: the tools disappear when the catalog is read next.
      ofCanvas('disable');
      changes = 0;
      let after = before;
      for (let i = 0; i < 80 && (!changes || after.some(name => name.startsWith('canvas__'))); i++) {
        await new Promise(r => setTimeout(r, 1000));
        after = await names();
      }
      must(changes && !after.some(name => name.startsWith('canvas__')) && after.includes('notes__note_read'), `${changes} changes; ${after}`);
      return `${before.length} tools, then ${after.length}`;
    } finally {
      await client.close();
      ofCanvas('enable');
    }
  });
  await row('scripted server', 'what goes wrong on the way: the bridge answers each request once', async () => {
    const env = { PASSAVANT_HOME: await signedIn(), PORT: String(faulty), RAS_ISSUER: canvas.ras, SCOPES: 'canvas.read' };
    const { code, out, err } = await finish(process.execPath, [join(here, 'bridge/faults.mjs')], env);
    must(code === 0 && Number(/(\d+) passed, 0 failed/.exec(out)?.[1]) > 90, out.split('\n').filter(line => !line.startsWith('ok')).join('\n') + err);
    return `${out.trim().split('\n').at(-1)}; ${/cost: .* — (.*) \(/.exec(out)?.[1]}`;
  });
}
