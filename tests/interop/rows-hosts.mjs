// Released hosts as people use them: `passavant install`, a real tool call through the bridge,
// `passavant uninstall`. Only their model is a stand-in.
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { tmpdir } from 'node:os';
import { randomUUID } from 'node:crypto';
import { fakeModel } from './fakemodel.mjs';

/** Runs a program to its end without holding up the stand-in in this process, and with no environment but `env`. */
function finish(program, args, env, cwd) {
  const child = spawn(program, args, { cwd, env: { PATH: process.env.PATH, ...env }, stdio: ['ignore', 'pipe', 'pipe'], timeout: 90_000 });
  let out = '', err = '';
  child.stdout.on('data', c => { out += c; });
  child.stderr.on('data', c => { err += c; });
  return new Promise((resolve, reject) => { child.on('error', reject); child.on('close', code => resolve({ code, out, err })); });
}

export default async function rows({ row, run, must, notes, startDemo, enrol, passavant, version, here, scratch, E }) {
  const bin = join(here, 'node_modules', '.bin');
  // The others are large, and only part of long runs.
  const long = E.LONG_HOSTS && join(E.LONG_HOSTS, 'node_modules');
  if (!long) console.log('skipped Codex, Gemini CLI                 ./test --long runs them');
  const model = await fakeModel();
  const home = join(scratch, 'hosts');
  await enrol('erin', home);

  const claude = {
    env: { ANTHROPIC_BASE_URL: model.url, ANTHROPIC_API_KEY: 'none', CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1', DISABLE_AUTOUPDATER: '1', DISABLE_TELEMETRY: '1', ENABLE_TOOL_SEARCH: 'false' },
    args: prompt => ['-p', prompt, '--allowedTools', 'mcp__notes'],
  };
  const hosts = [
    {
      id: 'claude-code', title: 'Claude Code', npm: '@anthropic-ai/claude-code', program: 'claude', ...claude,
      file: '.claude.json', own: '{\n  "hasCompletedOnboarding": true\n}\n', mine: '"timeout": 90000',
      edit: text => text.replace('"notes": {', '"notes": {\n      "timeout": 90000,'),
    },
    {
      id: 'codex', title: 'Codex', npm: '@openai/codex', program: 'codex', long: true,
      file: '.codex/config.toml', mine: 'tool_timeout_sec = 90 # mine',
      own: `# mine\nmodel = "none"\nmodel_provider = "none"\ncheck_for_update_on_startup = false\nanalytics.enabled = false\n\n[model_providers.none]\nname = "none"\nbase_url = "${model.url}/v1"\nwire_api = "responses"\n`,
      edit: text => text.replace('[mcp_servers.notes]\n', '[mcp_servers.notes]\ntool_timeout_sec = 90 # mine\n'),
      args: prompt => ['exec', '--skip-git-repo-check', '--dangerously-bypass-approvals-and-sandbox', prompt],
    },
    {
      id: 'gemini', title: 'Gemini CLI', npm: '@google/gemini-cli', program: 'gemini', long: true,
      file: '.gemini/settings.json', mine: '"timeout": 90000, // mine',
      own: '{\n  // mine\n  "security": { "auth": { "selectedType": "gemini-api-key" } },\n  "privacy": { "usageStatisticsEnabled": false },\n  "general": { "enableAutoUpdate": false }\n}\n',
      edit: text => text.replace('"notes": {', '"notes": {\n      "timeout": 90000, // mine'),
      env: { GOOGLE_GEMINI_BASE_URL: model.url, GEMINI_API_KEY: 'none', GEMINI_CLI_TRUST_WORKSPACE: 'true', GEMINI_CLI_NO_RELAUNCH: 'true' },
      args: prompt => ['-y', '-m', 'gemini-2.5-flash', '-p', prompt],
    },
  ];
  for (const { id, title, npm, program, file, own, mine, edit, env = {}, args, long: isLong } of hosts) {
    if (isLong && !long) continue;
    const packages = isLong ? long : join(here, 'node_modules');
    await row(`${title} ${JSON.parse(readFileSync(join(packages, npm, 'package.json'))).version}`, 'install, tools of both servers, a call with step-up, edits kept, uninstall', async () => {
      const person = mkdtempSync(join(tmpdir(), `passavant-${id}-`));
      const config = join(person, file), work = join(person, 'work');
      mkdirSync(dirname(config), { recursive: true });
      mkdirSync(work);
      writeFileSync(config, own);
      const read = () => readFileSync(config, 'utf8');
      const ours = (...args) => run(E.PASSAVANT, args, { PASSAVANT_HOME: home, HOME: person, XDG_CONFIG_HOME: '', CODEX_HOME: '', CLAUDE_CONFIG_DIR: '', GEMINI_CLI_HOME: '' });
      ours('install', id);
      ours('uninstall', '--all');
      must(read() === own, `it is not as it was:\n${read()}`);
      // For the second run, something has to change besides what the person has edited.
      ours('install', id, '--server', 'Notes');
      writeFileSync(config, edit(read()));
      ours('install', id);
      must(read().includes(mine) && read().includes('canvas'), `an edit is lost:\n${read()}`);

      // PASSAVANT_HOME comes only from the entry: the environment that starts the host may not have
      // it.
      const word = randomUUID();
      const told = await finish(join(packages, '.bin', program), args(`CALL note_write ${JSON.stringify({ title: id, text: word })}`), { HOME: person, ...env }, work);
      must(told.code === 0 && told.out.includes('RESULT: ') && told.out.includes(word), `exited ${told.code}\n${told.out}\n${told.err}`);
      for (const tool of ['canvas_draw', 'canvas_list', 'canvas_read', 'note_read', 'note_search', 'note_write'])
        must(model.offered().some(name => name.endsWith(tool)), `no ${tool} among ${model.offered()}`);
      must(JSON.parse(passavant(home, 'call', notes.mcp, 'note_read', JSON.stringify({ title: id }))).text === word, 'the call did not reach the MCP server');

      must(read().includes(mine), `the host took the edit out:\n${read()}`);
      ours('uninstall', '--all');
      must(!/passavant|connect|notes/.test(read()), `entries are left:\n${read()}`);
      must(own.split('\n').every(line => !line.includes('mine') || read().includes(line)), `what was there is lost:\n${read()}`);
    });
  }

  await row(`Claude Code ${version('@anthropic-ai/claude-code')}`, 'its own cross-app access, by the commands that install --native prints', async () => {
    const company = await startDemo('--tls');
    const person = mkdtempSync(join(tmpdir(), 'passavant-xaa-'));
    const work = join(person, 'work'), signedIn = join(person, 'passavant');
    mkdirSync(work);
    // Both programs open the browser by themselves. Claude Code returns to `localhost`, not to 127.0.0.1.
    const browser = join(person, 'xdg-open');
    writeFileSync(browser, `#!/bin/sh\nexec "${process.execPath}" "${join(here, 'visit.mjs')}" "$1" >/dev/null\n`);
    chmodSync(browser, 0o755);
    const idpSecret = join(person, 'idp.secret');
    company.admin('client', 'add', 'Claude Code', '--id', 'claude-code', '--software', 'claude-code', '--redirect-uri', 'http://localhost/callback', '--secret-out', idpSecret);
    company.admin('connection', 'add', 'claude-notes', '--client', 'claude-code', '--audience', company.notes.ras, '--ras-client-id', 'acme-notes', '--resource', company.notes.mcp, '--scopes', 'notes.read notes.write', '--everyone');
    const env = {
      PATH: `${person}:${bin}:${process.env.PATH}`, HOME: person, BROWSER: browser, LOGIN_USER: 'erin', LOGIN_PASS: company.password('erin'),
      PASSAVANT_HOME: signedIn, PASSAVANT_EXTRA_ROOTS: company.roots, NODE_EXTRA_CA_CERTS: company.roots,
      CLAUDE_CODE_ENABLE_XAA: '1', MCP_XAA_IDP_CLIENT_SECRET: readFileSync(idpSecret, 'utf8'), MCP_CLIENT_SECRET: company.secret('notes'), ...claude.env,
    };
    const ours = (...args) => run(E.PASSAVANT, args, env);
    ours('login', '--issuer', company.idp, '--insecure-storage');
    const commands = ours('install', 'claude-code', '--native').split('\n').filter(line => line.startsWith('claude '));
    must(commands.length === 3 && !existsSync(join(person, '.claude.json')), commands.join('\n'));
    for (const command of commands) {
      const done = await finish('sh', ['-c', command], env, work);
      must(done.code === 0, `${command}\n${done.out}\n${done.err}`);
    }
    const word = randomUUID();
    const told = await finish(join(bin, 'claude'), claude.args(`CALL note_write ${JSON.stringify({ title: 'xaa', text: word })}`), env, work);
    must(told.code === 0 && told.out.includes('RESULT: ') && told.out.includes(word), `exited ${told.code}\n${told.out}\n${told.err}`);
    must(JSON.parse(ours('call', company.notes.mcp, 'note_read', '{"title":"xaa"}')).text === word, 'the call did not reach the MCP server');
    const audit = JSON.parse(company.admin('audit', '--client', 'claude-code', '--outcome', 'granted'));
    must(audit.some(line => line.event === 'token_exchange' && line.details.rule === 'connection claude-notes'), JSON.stringify(audit));
    return `${audit.filter(line => line.event === 'token_exchange').length} ID-JAGs`;
  });
  model.close();
}
