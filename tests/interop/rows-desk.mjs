// An employee's computer: enrolment at the first login, the catalog, the bridge, MCP clients'
// configs, the doctor.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tmpdir } from 'node:os';

export default async function rows({ row, run, must, idp, canvas, notes, admin, enrol, login, password, passavant, here, scratch, shots, folder, former, E }) {
  const home = join(scratch, 'desk');
  const desk = (...args) => passavant(home, ...args);
  const fails = (home, ...args) => spawnSync(E.PASSAVANT, args, { env: { ...process.env, PASSAVANT_HOME: home }, encoding: 'utf8' });
  await row('passavant', 'enrols this computer: one sign-in, no secret, no registration anywhere', async () => {
    const done = await enrol('erin', home);
    must(done.out.includes('This computer is enrolled') && done.out.includes('Signed in as erin'), done.out + done.err);
    must(JSON.parse(desk('status', '--json')).enrolled === true, 'status');
    desk('call', canvas.mcp, 'canvas_draw', JSON.stringify({ canvas: 'desk', shape: { kind: 'text', x: 1, y: 2, label: 'hi' } }));
    desk('call', notes.mcp, 'note_write', JSON.stringify({ title: 'desk', text: 'hi' }));
    const installations = JSON.parse(admin('installation', 'list'));
    must(installations.some(i => i.user === 'erin' && i.used_at > 0), JSON.stringify(installations));
    must(statSync(join(home, 'insecure-profile.json')).mode % 0o1000 === 0o600, 'mode');
  });
  await row('passavant', 'servers: what is open, what is refused and why', async () => {
    const max = join(scratch, 'desk-max');
    await enrol('max', max);
    must(/Canvas +Canvas +\S+ +refused: group engineering required/.test(passavant(max, 'servers')), passavant(max, 'servers'));
    const refused = fails(max, 'call', canvas.mcp, 'canvas_read', '{}');
    must(refused.status === 1 && refused.stderr.includes("Access to Canvas was refused by Acme's policy: group engineering required. Ask IT."), refused.stderr);
  });
  await row('passavant', 'no token or secret in arguments, environment or standard error', async () => {
    const child = spawn(E.PASSAVANT, ['connect', canvas.mcp], { env: { ...process.env, PASSAVANT_HOME: home, RUST_LOG: 'trace' }, stdio: ['pipe', 'pipe', 'pipe'] });
    let out = '', err = '';
    child.stdout.on('data', c => { out += c; });
    child.stderr.on('data', c => { err += c; });
    child.stdin.write('{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}\n');
    for (let i = 0; i < 100 && !out.includes('\n'); i++) await new Promise(r => setTimeout(r, 20));
    const seen = readFileSync(`/proc/${child.pid}/cmdline`, 'utf8') + readFileSync(`/proc/${child.pid}/environ`, 'utf8') + err + out;
    child.stdin.end();
    await new Promise(r => child.on('close', r));
    const held = readFileSync(join(home, 'insecure-profile.json'), 'utf8');
    const secrets = [...held.matchAll(/"(?:id_token|refresh_token|access_token|key)":"([^"]+)"/g)].map(m => m[1]);
    must(secrets.length >= 4 && out.includes('"id":1'), `nothing was tested: ${secrets.length} ${out}`);
    must(!secrets.some(s => seen.includes(s)) && !/eyJ[\w-]{20,}\.eyJ/.test(seen), 'a secret was shown');
  });
  await row('passavant', 'the bridge: ready at once with a kept token, small, one sign-in for many', async () => {
    desk('tools', canvas.mcp);
    const times = [];
    let memory = 0;
    for (let i = 0; i < 5; i++) {
      const child = spawn(E.PASSAVANT, ['connect', canvas.mcp], { env: { ...process.env, PASSAVANT_HOME: home } });
      const started = performance.now();
      let out = '';
      child.stdout.on('data', c => { out += c; });
      const lines = n => new Promise(r => { const t = setInterval(() => { if (out.split('\n').length > n) { clearInterval(t); r(); } }, 1); });
      child.stdin.write('{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}\n');
      await lines(1);
      child.stdin.write('{"jsonrpc":"2.0","method":"notifications/initialized"}\n{"jsonrpc":"2.0","id":2,"method":"tools/list"}\n');
      await lines(2);
      times.push(performance.now() - started);
      memory = Math.max(memory, Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))[1]));
      child.stdin.end();
      must(await new Promise(r => child.on('close', r)) === 0, 'it did not end well');
      for (const line of out.trim().split('\n')) JSON.parse(line);
    }
    times.sort((a, b) => a - b);
    return `start to first tool list ${times[2].toFixed(0)} ms (median), ${(memory / 1024).toFixed(1)} MiB resident`;
  });
  await row('passavant', 'a computer that was revoked is enrolled anew; another person has to give it up first', async () => {
    const taken = await login('max', home, '--insecure-storage', '--no-registration');
    must(taken.code !== 0 && taken.err.includes('logout --forget'), taken.out + taken.err);
    const own = JSON.parse(desk('installations', '--json')).find(i => i.this_one);
    must(desk('status').includes('confirms that it is active') && JSON.parse(desk('status', '--json')).asked, desk('status'));
    admin('installation', 'revoke', own.id);
    must(desk('status').includes('has ended it') && JSON.parse(desk('status', '--json')).signed_in === false, desk('status'));
    must(fails(home, 'servers').status === 1, 'a revoked installation was served');
    const again = await enrol('erin', home);
    must(again.out.includes('This computer is enrolled'), again.out + again.err);
    must(desk('tools', canvas.mcp).includes('canvas_draw'), 'tools');
    must(desk('logout', '--forget').includes('not enrolled any more'), 'logout --forget');
    must(!JSON.parse(admin('installation', 'list')).some(i => i.id === JSON.stringify(own.id)), 'it is still listed');
    await enrol('erin', home);
  });
  await row('passavant', 'native settings where IT registered the client, the bridge elsewhere', async () => {
    const person = mkdtempSync(join(tmpdir(), 'passavant-native-'));
    admin('client', 'add', 'VS Code', '--id', 'vscode', '--software', 'vscode', '--redirect-uri', 'http://127.0.0.1/callback', '--secret-out', join(scratch, 'vscode.secret'));
    admin('connection', 'add', 'vscode-notes', '--client', 'vscode', '--audience', notes.ras, '--ras-client-id', 'acme-notes', '--resource', notes.mcp, '--scopes', 'notes.read', '--everyone');
    const user = join(person, '.config/Code/User');
    mkdirSync(user, { recursive: true });
    writeFileSync(join(user, 'settings.json'), '{\n  // mine\n  "editor.fontSize": 12,\n}\n');
    const env = { PASSAVANT_HOME: home, HOME: person, XDG_CONFIG_HOME: '', VSCODE_PORTABLE: '', VSCODE_APPDATA: '' };
    const told = run(E.PASSAVANT, ['install', 'vscode', '--native'], env);
    must(told.includes('Set Client Secret'), told);
    const servers = JSON.parse(readFileSync(join(user, 'mcp.json'))).servers;
    must(servers.notes.type === 'http' && servers.notes.oauth.enterpriseManaged === true && servers.notes.oauth.clientId === 'acme-notes', JSON.stringify(servers));
    must(servers.canvas.args.join() === `connect,${canvas.mcp}`, JSON.stringify(servers));
    const settings = readFileSync(join(user, 'settings.json'), 'utf8');
    must(settings.includes('// mine') && settings.includes(`"mcp.enterpriseManagedAuth.idp": {`) && settings.includes(`"issuer": "${idp}"`), settings);
    const all = settings + readFileSync(join(user, 'mcp.json'), 'utf8');
    must(!all.includes(readFileSync(join(scratch, 'vscode.secret'), 'utf8')) && !/clientSecret/.test(all), 'a secret is in a config');
    run(E.PASSAVANT, ['uninstall', '--all'], env);
    must(readFileSync(join(user, 'settings.json'), 'utf8') === '{\n  // mine\n  "editor.fontSize": 12,\n}\n' && !existsSync(join(user, 'mcp.json')), 'it is not as it was');
  });
  await row('passavant', 'uninstall: what others changed since stays, whatever came between', async () => {
    const person = mkdtempSync(join(tmpdir(), 'passavant-edited-'));
    const [cursor, codex] = [join(person, '.cursor'), join(person, '.codex')];
    for (const folder of [cursor, codex]) mkdirSync(folder);
    const file = join(cursor, 'mcp.json'), toml = join(codex, 'config.toml');
    writeFileSync(join(cursor, 'mcp.json.before-passavant'), 'mine');
    writeFileSync(toml, '# mine\nmodel = "x"\n');
    const env = { PASSAVANT_HOME: home, HOME: person, XDG_CONFIG_HOME: '', CODEX_HOME: '' };
    const read = () => JSON.parse(readFileSync(file, 'utf8'));
    const edit = change => { const held = read(); change(held.mcpServers); writeFileSync(file, JSON.stringify(held)); };
    run(E.PASSAVANT, ['install', 'cursor', '--server', 'Canvas'], env);
    edit(servers => { servers.mine = { command: 'mine' }; });
    run(E.PASSAVANT, ['install', 'cursor', 'codex'], env);
    edit(servers => { servers.notes.command = 'mine too'; });
    writeFileSync(toml, readFileSync(toml, 'utf8') + 'broken = [\n');
    const done = spawnSync(E.PASSAVANT, ['uninstall', '--all'], { env: { ...process.env, ...env }, encoding: 'utf8' });
    must(done.status === 1 && done.stderr.includes('1 file could not be changed back') && done.stderr.includes('config.toml was not changed'), done.stdout + done.stderr);
    must(JSON.stringify(Object.keys(read().mcpServers).sort()) === '["mine","notes"]' && done.stdout.includes('`notes` was changed since'), `${done.stdout}\n${readFileSync(file, 'utf8')}`);
    must(readFileSync(join(cursor, 'mcp.json.before-passavant'), 'utf8') === 'mine', 'the backup of somebody else');
    writeFileSync(toml, 'added = 1\n' + readFileSync(toml, 'utf8').replace('broken = [\n', ''));
    run(E.PASSAVANT, ['uninstall', '--all'], env);
    must(readFileSync(toml, 'utf8').trim() === 'added = 1\n# mine\nmodel = "x"', readFileSync(toml, 'utf8'));
  });
  await row('passavant', 'what a build by the earlier name left on a computer is taken over once: folder, entries, files of its own', async () => {
    const before = text => text.replaceAll('passavant', former).replaceAll('PASSAVANT', former.toUpperCase());
    const person = mkdtempSync(join(tmpdir(), 'taken-over-'));
    const env = { PASSAVANT_HOME: '', HOME: person, XDG_CONFIG_HOME: '', CONTINUE_GLOBAL_DIR: '' };
    const now = join(person, '.config/passavant'), then = before(now), file = join(person, '.cursor/mcp.json');
    const own = join(person, '.continue/mcpServers/passavant.json');
    mkdirSync(join(person, '.cursor'));
    mkdirSync(join(person, '.continue/mcpServers'), { recursive: true });
    writeFileSync(file, '{"mcpServers":{"mine":{"command":"mine"}}}');
    cpSync(home, now, { recursive: true });
    run(E.PASSAVANT, ['install', 'cursor', 'continue', '--server', 'Canvas'], env);
    const wanted = [readFileSync(file, 'utf8'), readFileSync(own, 'utf8')];
    // The state that an earlier build would have left.
    const record = join(now, 'installed.json');
    for (const text of [file, own, record]) writeFileSync(text, before(readFileSync(text, 'utf8')));
    const ledger = JSON.parse(readFileSync(record, 'utf8'));
    for (const [name, held] of Object.entries(ledger.files)) held.left = createHash('sha256').update(readFileSync(name === before(own) ? own : name)).digest('base64url');
    writeFileSync(record, JSON.stringify(ledger));
    renameSync(own, before(own));
    renameSync(file + '.before-passavant', before(file + '.before-passavant'));
    renameSync(now, then);
    const status = spawnSync(E.PASSAVANT, ['status'], { env: { ...process.env, ...env }, encoding: 'utf8' });
    must(status.stdout.includes('erin') && status.stderr.includes(`${then} was renamed to ${now}`) && !existsSync(then), status.stdout + status.stderr);
    must(!run(E.PASSAVANT, ['status'], env).includes(former), 'it is taken over once');
    run(E.PASSAVANT, ['install', 'cursor', 'continue', '--server', 'Canvas'], env);
    must(readFileSync(file, 'utf8') === wanted[0] && readFileSync(own, 'utf8') === wanted[1] && !existsSync(before(own)), `${readFileSync(file, 'utf8')}\n${readFileSync(own, 'utf8')}`);
    run(E.PASSAVANT, ['uninstall', '--all'], env);
    must(readFileSync(file, 'utf8') === '{"mcpServers":{"mine":{"command":"mine"}}}' && !existsSync(own), readFileSync(file, 'utf8'));
  });
  await row('passavant', 'doctor: says who has to change what, and ends with the code of the stage', async () => {
    const report = JSON.parse(desk('doctor', canvas.mcp, '--json'));
    must(report.works && report.findings.length > 15, JSON.stringify(report));
    const max = fails(join(scratch, 'desk-max'), 'doctor', canvas.mcp);
    must(max.status === 15 && max.stdout.includes('group engineering required'), max.stdout);
    const nowhere = fails(home, 'doctor', `${idp}/mcp`);
    must(nowhere.status === 12 && nowhere.stdout.includes("the MCP server's operator"), nowhere.stdout);
  });
  await row('Chromium', '`login --device-code`: two codes typed on another device, no is where the focus is; then a tool call; four looks', async () => {
    const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync);
    must(executablePath, 'chromium is not installed');
    const { chromium: driver } = await import('playwright-core');
    const browser = await driver.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-sync', '--no-first-run'] });
    const phone = join(scratch, 'desk-by-code');
    const child = spawn(E.PASSAVANT, ['login', '--issuer', idp, '--insecure-storage', '--device-code'], { env: { ...process.env, PASSAVANT_HOME: phone } });
    let told = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { told += chunk; });
    const ended = new Promise(r => child.on('close', r));
    const code = async n => {
      for (let i = 0; i < 200; i++, await new Promise(r => setTimeout(r, 100))) {
        const codes = told.match(/\b[B-Z]{4}-[B-Z]{4}\b/g) ?? [];
        if (codes.length >= n) return codes[n - 1];
      }
      throw new Error(`no code ${n}:\n${told}`);
    };
    try {
      const problems = [];
      const first = await code(1);
      must(told.includes(`${idp}/activate`), told);
      const looks = [['wide-light', 1200, 'light'], ['wide-dark', 1200, 'dark'], ['narrow-light', 320, 'light'], ['narrow-dark', 320, 'dark']];
      for (const [name, width, colorScheme] of looks) {
        const page = await (await browser.newContext({ viewport: { width, height: 800 }, colorScheme })).newPage();
        page.on('console', message => { if (['error', 'warning'].includes(message.type()) && !/40[0-9]/.test(message.text())) problems.push(message.text()); });
        const focused = id => page.waitForFunction(id => document.activeElement.id === id, id);
        await page.goto(`${idp}/activate`);
        await focused('username');
        await page.keyboard.type('erin');
        await page.keyboard.press('Tab');
        await page.keyboard.type(password('erin'));
        await page.keyboard.press('Enter');
        await focused('user_code');
        await page.keyboard.type('BCDFBCDF');
        await page.keyboard.press('Enter');
        await page.waitForSelector('[role=alert]');
        await page.screenshot({ path: join(shots, `device-wrong-${name}.png`) });
        await focused('user_code');
        await page.keyboard.type(first.toLowerCase());
        await page.keyboard.press('Enter');
        await page.waitForSelector('button[value=allow]');
        await page.screenshot({ path: join(shots, `device-question-${name}.png`) });
        must(await page.evaluate(() => document.activeElement.value) === 'deny', 'an Enter too many would say yes');
        must(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}: it scrolls sideways`);
        if (name === 'narrow-dark') {
          await page.keyboard.press('Shift+Tab');
          await page.keyboard.press('Enter');
          await page.waitForSelector('text=second code');
          await focused('user_code');
          await page.keyboard.type(await code(2));
          await page.keyboard.press('Enter');
          await page.waitForSelector('button[value=allow]');
          await page.keyboard.press('Shift+Tab');
          await page.keyboard.press('Enter');
          await page.waitForSelector('text=is signed in');
          await page.screenshot({ path: join(shots, `device-done-${name}.png`) });
        }
        await page.context().close();
      }
      must(problems.length === 0, `the console says: ${problems.join('; ')}`);
      must(await ended === 0 && told.includes('Signed in as erin'), told);
      passavant(phone, 'call', notes.mcp, 'note_search', '{"words":"hi"}');
    } finally {
      child.kill();
      await browser.close();
    }
  });
}
