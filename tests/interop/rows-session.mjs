// docs/session.txt is what a person reads from login to uninstall, word for word. RECORD_SESSION=1
// records it again.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tmpdir } from 'node:os';

export default async function rows({ row, must, startDemo, enrol, here, E }) {
  await row('passavant', 'the recorded session in docs is what happens', async () => {
    // A computer with two MCP clients. Addresses, ids and times in the record are placeholders for
    // those of this run.
    const person = mkdtempSync(join(tmpdir(), 'passavant-session-'));
    mkdirSync(join(person, '.cursor'));
    mkdirSync(join(person, '.config/zed'), { recursive: true });
    writeFileSync(join(person, '.config/zed/settings.json'), '// my settings\n{\n  "theme": "One Dark",\n}\n');
    const bin = join(person, 'bin');
    mkdirSync(bin);
    writeFileSync(join(bin, 'passavant'), `#!/bin/sh\nexec '${E.PASSAVANT}' "$@"\n`);
    chmodSync(join(bin, 'passavant'), 0o755);
    const own = join(person, '.config/passavant');
    const company = await startDemo();
    const { idp, canvas, notes } = company;
    const env = { HOME: person, PASSAVANT_HOME: '', XDG_CONFIG_HOME: '', PATH: `${bin}:/usr/bin:/bin`, CODEX_HOME: '', CLAUDE_CONFIG_DIR: '', GEMINI_CLI_HOME: '', GOOSE_PATH_ROOT: '' };
    const tidy = text => text
      .replaceAll(person, '/home/erin').replaceAll(E.PASSAVANT, '/usr/local/bin/passavant')
      .replaceAll(idp, 'https://idp.acme.example').replaceAll(canvas.ras, 'https://as.canvas.example').replaceAll(canvas.mcp, 'https://mcp.canvas.example/mcp')
      .replaceAll(canvas.mcp.slice(0, -4), 'https://mcp.canvas.example')
      .replaceAll(notes.mcp, 'https://mcp.notes.example/mcp').replaceAll(notes.ras, 'https://as.notes.example')
      .replace(/\/installations\/[\w-]{22}/g, '/installations/f3wq0Zx7S4mC1mYk9pLr2A').replace(/^[\w-]{22}( +laptop)/gm, 'f3wq0Zx7S4mC1mYk9pLr2A$1')
      .replace(/authorize\?\S+/g, 'authorize?…').replace(/^warning: the sign-in is kept in the file .*\n/gm, '').replace(/ +$/gm, '');
    let record = '';
    const shell = (command, out) => { record += `$ ${command}\n${tidy(out)}\n`; };
    const first = await enrol('erin', own, { env, args: ['--device', 'laptop'], company });
    shell('passavant login --issuer https://idp.acme.example --no-browser --insecure-storage --device laptop', first.out);
    const say = (...args) => {
      const done = spawnSync(E.PASSAVANT, args, { env: { ...process.env, ...env }, encoding: 'utf8' });
      shell(['passavant', ...args.map(a => (/[ "{]/.test(a) ? `'${a}'` : a))].join(' ').replaceAll(canvas.mcp, 'https://mcp.canvas.example/mcp'), done.stdout + done.stderr);
      must(done.status === 0, done.stdout + done.stderr);
    };
    say('servers');
    say('install');
    say('install', 'cursor', 'zed', '--dry-run');
    say('install', 'cursor', 'zed');
    say('call', canvas.mcp, 'canvas_list');
    say('installations');
    say('doctor', canvas.mcp);
    say('uninstall', '--all');
    const file = join(here, '../../docs/session.txt');
    // Column widths depend on the lengths of this run's addresses.
    const loose = text => text.replace(/ +/g, ' ');
    if (E.RECORD_SESSION) writeFileSync(file, record);
    const kept = readFileSync(file, 'utf8');
    if (loose(kept) !== loose(record)) {
      const [a, b] = [loose(kept).split('\n'), loose(record).split('\n')];
      const at = a.findIndex((line, i) => line !== b[i]);
      throw new Error(`docs/session.txt is not what happens, line ${at + 1}:\n  record: ${a[at]}\n  now:    ${b[at]}`);
    }
    return `${record.split('\n').length} lines`;
  });
}
