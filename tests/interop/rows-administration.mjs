// The administration API, called by third-party programs: a fuzzer that reads its OpenAPI document,
// and calls of the socket by its owner and by others.
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';

export default async function ({ E, row, run, must, freePort, scratch, here }) {
  const folder = join(scratch, 'administered');
  run(E.PASSAVANT, ['init', folder]);
  const config = join(folder, 'passavant.toml');
  let text = readFileSync(config, 'utf8');
  for (const port of ['7400', '7401', '7402']) text = text.replaceAll(`:${port}`, `:${await freePort()}`);
  writeFileSync(config, text);
  const [, address] = /listen = "(127\.0\.0\.1:\d+)"/.exec(text.slice(text.indexOf('[admin]')));
  const [, ras] = /\[\[ras\]\]\n(?:#.*\n)*name = "(\w+)"/.exec(text);
  const serve = async () => {
    const child = spawn(E.PASSAVANT, ['serve', '--config', config], { stdio: ['ignore', 'ignore', 'pipe'] });
    let told = '';
    child.stderr.on('data', chunk => { told += chunk; });
    process.on('exit', () => child.kill('SIGTERM'));
    for (let i = 0; !told.includes('ready'); i++) {
      must(i < 200 && child.exitCode === null, told);
      await new Promise(r => setTimeout(r, 50));
    }
    return { child, ended: new Promise(r => child.on('close', r)) };
  };
  const admin = (...args) => run(E.PASSAVANT, ['admin', '--config', config, ...args]);
  const first = await serve();
  const socket = join(folder, 'passavant.sock');

  await row('passavant admin', 'the local owner needs no secret; a file that is there is what it was', async () => {
    must(statSync(socket).mode % 0o1000 === 0o600, 'others may use the socket');
    // Make it impossible to read the secret.
    const kept = join(folder, 'passavant.admin-secret');
    const secret = readFileSync(kept);
    writeFileSync(kept, 'x'.repeat(43));
    chmodSync(kept, 0o600);
    admin('user', 'add', 'erin', '--no-password');
    must(admin('audit', '--limit', '1').includes('by=the local owner'), admin('audit'));
    const wrong = spawnSync(E.PASSAVANT, ['admin', '--config', config, '--secret-file', kept, 'user', 'list'], { encoding: 'utf8' });
    must(wrong.status !== 0 && wrong.stderr.includes('does not know this administration secret'), wrong.stderr);
    writeFileSync(kept, secret);
    must(admin('--secret-file', kept, 'user', 'list').includes('erin'), 'the secret');
    const twice = spawnSync(E.PASSAVANT, ['serve', '--config', config], { encoding: 'utf8', timeout: 20_000 });
    must(twice.status !== 0, 'it ran twice');
    must(admin('user', 'list').includes('erin'), 'the socket went with the second one');
  });

  await row('passavant admin', 'changes, dry runs, sessions; a socket that was left behind is taken over', async () => {
    must(admin('user', 'change', 'erin', '--email', 'erin@acme.example').includes('erin@acme.example'), 'change');
    admin('group', 'add', 'staff');
    admin('user', 'groups', 'erin', 'staff');
    const dry = spawnSync(E.PASSAVANT, ['admin', '--config', config, 'group', 'delete', 'staff', '--dry-run'], { encoding: 'utf8' });
    must(dry.status === 0 && dry.stderr.includes('user erin'), dry.stderr);
    must(admin('group', 'show', 'staff').includes('staff'), 'a dry run deleted it');
    must(admin('session', 'list').includes('PERSON'), 'sessions');
    const preview = admin('cut-off', 'person', 'erin', '--dry-run');
    must(preview.includes('Nothing was changed') && !admin('user', 'show', 'erin').includes('disabled'), preview);
    const watched = admin('cut-off', 'person', 'erin', '--watch');
    must(watched.includes('Done') && admin('user', 'show', 'erin').includes('disabled'), watched);
    const [, report] = /cut-off report (\d+)/.exec(watched);
    must(JSON.parse(admin('cut-off', 'report', report, '--json')).done, report);
    admin('user', 'enable', 'erin');
    // Nowhere to write: what was done, and what is lost, is said in a sentence.
    const full = spawnSync('sh', ['-c', 'exec "$0" "$@" > /dev/full', E.PASSAVANT, 'admin', '--config', config, 'administrator', 'add', 'ann', '--role', 'auditor'], { encoding: 'utf8' });
    must(full.status === 1 && full.stderr.includes('give the client or the administrator a new one') && !/panicked/.test(full.stderr), full.stderr);
    must(admin('administrator', 'list').includes('ann'), 'nothing was done');
    first.child.kill('SIGKILL');
    await first.ended;
    must(existsSync(socket), 'nothing was left behind');
    const second = await serve();
    must(admin('user', 'list').includes('erin'), 'after it was killed');
    second.child.kill('SIGTERM');
    await second.ended;
    must(!existsSync(socket), 'the socket stays after an orderly end');
  });

  await row('passavant serve', 'a log that nobody reads stops nothing, and what was lost of it is said', async () => {
    const { child, ended } = await serve();
    child.stderr.pause();
    const secret = readFileSync(join(folder, 'passavant.admin-secret'), 'utf8').trim();
    const ask = async () => (await fetch(`http://${address}/roles`, { headers: { authorization: `Bearer ${secret}` }, signal: AbortSignal.timeout(10_000) })).status;
    try {
      // Each is a line of the log: far more than a pipe, and what waits for it, can hold.
      for (let i = 0; i < 400; i++) {
        const all = await Promise.all(Array.from({ length: 50 }, ask));
        must(all.every(status => status === 200), `${i}: ${all}`);
      }
      let told = '';
      child.stderr.on('data', chunk => { told += chunk; });
      child.stderr.resume();
      for (let i = 0; !told.includes('were lost'); i++) {
        must(i < 300, told.slice(-500));
        await new Promise(r => setTimeout(r, 50));
      }
      return /lines=(\d+)/.exec(told)[0];
    } finally {
      child.kill('SIGTERM');
      await ended;
    }
  });

  await row('passavant serve', 'its end waits neither for a reader of the log nor for half a request; told twice, for nobody', async () => {
    const secret = readFileSync(join(folder, 'passavant.admin-secret'), 'utf8').trim();
    // One pipe for all it says, which nobody reads after `ready`.
    const child = spawn('sh', ['-c', 'exec "$0" serve --config "$1" 2>&1', E.PASSAVANT, config], { stdio: ['ignore', 'pipe', 'ignore'] });
    process.on('exit', () => child.kill('SIGKILL'));
    await new Promise(done => { let told = ''; child.stdout.on('data', chunk => { told += chunk; if (told.includes('ready')) done(child.stdout.pause()); }); });
    for (let i = 0; i < 240; i++)
      await Promise.all(Array.from({ length: 50 }, () => fetch(`http://${address}/roles`, { headers: { authorization: `Bearer ${secret}` } })));
    const ends = (of, most) => new Promise((done, late) => { of.on('exit', (code, signal) => done(`${code ?? signal}`)); setTimeout(() => late(new Error(`it still runs after ${most} ms`)), most).unref(); });
    const full = ends(child, 10_000);
    child.kill('SIGTERM');
    must(await full === '0', `with a full pipe it ends with ${await full}`);
    const { child: second } = await serve();
    const half = connect(socket).on('error', () => {});
    await new Promise(r => half.on('connect', r));
    half.write('GET /roles HTTP/1.1\r\nHost: x');
    await new Promise(r => setTimeout(r, 100));
    const twice = ends(second, 5000);
    second.kill('SIGTERM');
    await new Promise(r => setTimeout(r, 500));
    second.kill('SIGTERM');
    must(await twice === '143', `told twice it ends with ${await twice}`);
    half.destroy();
  });

  await row('schemathesis', 'every operation of the OpenAPI document, as it is written', async () => {
    const { child, ended } = await serve();
    const secret = readFileSync(join(folder, 'passavant.admin-secret'), 'utf8').trim();
    try {
      const document = join(here, '../../docs/openapi.json');
      const settings = join(scratch, 'schemathesis.toml');
      writeFileSync(settings, `[parameters]\n"path.ras" = "${ras}"\n`);
      let requests = 0;
      // The schemas' patterns for URLs are narrower than what the server accepts, since no schema
      // can say what a URL is: a URL that breaks a pattern is not always invalid.
      const urls = '/idp/(authorization-servers|clients|connections|explain|resources)';
      for (const part of [[`^(?!${urls})/idp`], [`^(${urls}|/ras)`, '--exclude-checks', 'negative_data_rejection']]) {
        // Not `spawnSync`: the server's log has to be read meanwhile.
        const fuzzer = spawn(E.SCHEMATHESIS, ['--config-file', settings, 'run', document, '--url', `http://${address}`,
          '-H', `Authorization: Bearer ${secret}`, '--max-examples', E.LONG_HOSTS ? '60' : '6', '--seed', '7', '--no-color', '--include-path-regex', ...part],
        { stdio: ['ignore', 'pipe', 'pipe'], timeout: 600_000, cwd: scratch, env: { ...E, PYTHONPATH: here, SCHEMATHESIS_HOOKS: 'administration_hooks' } });
        let told = '';
        for (const stream of [fuzzer.stdout, fuzzer.stderr]) stream.on('data', chunk => { told += chunk; });
        const status = await new Promise(r => fuzzer.on('close', r));
        const done = /(\d+) generated, (\d+) passed/.exec(told);
        // What failed comes first: of a long answer, no more than the beginning may be shown.
        const from = Math.max(0, told.search(/=+ (FAILURES|ERRORS) =+/));
        must(status === 0 && done && done[1] === done[2], told.slice(from).replaceAll(secret, '…'));
        requests += Number(done[1]);
      }
      const added = admin('--ras', ras, 'audit', '--event', 'admin.', '--limit', '1000');
      must(added.includes('admin.create'), `nothing was added at the authorization server: ${added}`);
      return `${requests} requests`;
    } finally {
      child.kill('SIGTERM');
      await ended;
    }
  });
}
