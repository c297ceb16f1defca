// People of the company's own: provisioned by others' programs (scim2-tester), and signing in by passkey and one-time
// passwords in a real browser with a virtual authenticator.
// env: SCIM (a Python with scim2-tester)
import { spawn, spawnSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const sleep = ms => new Promise(r => setTimeout(r, ms));
const claims = token => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
const ID_JAG = 'urn:ietf:params:oauth:token-type:id-jag', EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';

/** The code of an authenticator application (RFC 6238). */
const code = (letters, at = Date.now()) => {
  let bits = '';
  for (const letter of letters) bits += 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0');
  const seed = Buffer.from(bits.match(/.{8}/g).map(byte => parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(at / 30_000)));
  const tag = createHmac('sha1', seed).update(step).digest(), from = tag[19] & 15;
  return String((tag.readUInt32BE(from) & 0x7fffffff) % 1_000_000).padStart(6, '0');
};

export default async function rows({ row, run, must, version, freePort, here, scratch, shots, E }) {
  const folder = join(scratch, 'accounts-company'), config = join(folder, 'passavant.toml');
  run(E.PASSAVANT, ['init', folder]);
  const [port, ras, admins] = [await freePort(), await freePort(), await freePort()];
  // A name: passkeys are for one.
  const idp = `http://localhost:${port}`, canvas = { ras: `http://localhost:${ras}`, mcp: 'http://127.0.0.1:9/mcp' };
  writeFileSync(config, `
[keys]
file = "passavant.key"
[admin]
listen = "127.0.0.1:${admins}"
secret_file = "passavant.admin-secret"
[idp]
issuer = "${idp}"
listen = "127.0.0.1:${port}"
database = "sqlite:idp.db"
name = "Acme"
[[ras]]
name = "canvas"
issuer = "${canvas.ras}"
listen = "127.0.0.1:${ras}"
database = "sqlite:canvas.db"
`);
  async function serve() {
    const child = spawn(E.PASSAVANT, ['serve', '--config', config], { stdio: ['ignore', 'pipe', 'pipe'] });
    const ended = new Promise(r => child.on('close', r));
    process.on('exit', () => child.kill('SIGTERM'));
    let told = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { told += chunk; });
    // Nothing looks at the port before: to try it is to hold it for a moment.
    for (let i = 0; !told.includes('ready'); i++) { must(i < 400 && child.exitCode === null, told); await sleep(50); }
    return { told: () => told, stop: async () => { child.kill('SIGTERM'); await ended; } };
  }
  let server = await serve();
  const admin = (...args) => run(E.PASSAVANT, ['admin', '--config', config, '--json', ...args]);
  const made = (...args) => JSON.parse(admin(...args));

  const tester = /scim2-tester==(.*)/.exec(readFileSync(join(here, 'python/scim2.txt'), 'utf8'))[1];
  await row(`scim2-tester ${tester}`, 'every check it knows of a provisioning server', async () => {
    made('upstream', 'add', 'corp', '--issuer', 'http://127.0.0.1:9', '--client-id', 'front');
    const { token, provisioning_url } = made('upstream', 'token', 'corp');
    must(provisioning_url === `${idp}/scim/corp/v2`, provisioning_url);
    const check = spawn(E.SCIM, [join(here, 'python/scim_check.py'), provisioning_url, token], { stdio: ['ignore', 'pipe', 'pipe'], timeout: 300_000 });
    let said = '';
    for (const stream of [check.stdout, check.stderr]) stream.on('data', chunk => { said += chunk; });
    const status = await new Promise(r => check.on('close', r));
    must(status === 0, said.replaceAll(token, '…'));
    admin('upstream', 'delete', 'corp');
    return said.trim().split('\n').at(-1);
  });

  const application = createServer((_, answer) => answer.end('back at the application')).listen(0, '127.0.0.1');
  await new Promise(r => application.once('listening', r));
  const BACK = `http://127.0.0.1:${application.address().port}/callback`;
  const scopes = ['--scopes', 'canvas.read'];
  admin('--ras', 'canvas', 'resource', 'add', canvas.mcp, ...scopes);
  admin('--ras', 'canvas', 'trust', 'add', idp, '--just-in-time');
  admin('server', 'add', canvas.ras, '--name', 'Canvas');
  admin('resource', 'add', canvas.mcp, '--server', canvas.ras, '--name', 'Canvas', ...scopes);
  const secret = join(folder, 'agent.secret');
  admin('client', 'add', 'Agent', '--id', 'agent', '--redirect-uri', 'http://127.0.0.1/callback', '--secret-out', secret);
  admin('connection', 'add', 'strong', '--client', 'agent', '--audience', canvas.ras, '--ras-client-id', 'agent-there', '--resource', canvas.mcp, ...scopes, '--everyone', '--acr', 'phr');
  const password = 'a long passphrase of nora';
  run(E.PASSAVANT, ['admin', '--config', config, 'user', 'add', 'nora', '--display-name', 'Nora N. Example'], {}, `${password}\n`);
  const post = async form => {
    const authorization = `Basic ${btoa(`agent:${readFileSync(secret, 'utf8').trim()}`)}`;
    const answer = await fetch(`${idp}/token`, { method: 'POST', headers: { authorization }, body: new URLSearchParams(form) });
    return { status: answer.status, ...await answer.json() };
  };
  const exchange = token => post({ grant_type: EXCHANGE, requested_token_type: ID_JAG, subject_token: token, subject_token_type: 'urn:ietf:params:oauth:token-type:id_token', audience: canvas.ras, resource: canvas.mcp });
  const asking = async more => {
    const verifier = crypto.randomUUID() + crypto.randomUUID();
    const challenge = Buffer.from(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier))).toString('base64url');
    return { verifier, url: `${idp}/authorize?${new URLSearchParams({ response_type: 'code', client_id: 'agent', redirect_uri: BACK, scope: 'openid', state: 's', code_challenge: challenge, code_challenge_method: 'S256', ...more })}` };
  };

  await row('Chromium', 'a passkey is added and signs in; a step-up during an exchange; one-time passwords and recovery codes; no violation by axe', async () => {
    const { chromium: driver } = await import('playwright-core');
    const chromium = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync);
    const source = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
    const browser = await driver.launch({ executablePath: chromium, args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-sync', '--no-first-run'] });
    const problems = [];
    /** A visitor whose browser has an authenticator, if `keys`. */
    async function visitor(width, colorScheme, keys = true) {
      const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme });
      const page = await context.newPage();
      page.on('console', message => { if (['error', 'warning'].includes(message.type()) && !/40[0-9]/.test(message.text())) problems.push(message.text()); });
      if (!keys) return { page };
      const cdp = await context.newCDPSession(page);
      await cdp.send('WebAuthn.enable');
      const { authenticatorId } = await cdp.send('WebAuthn.addVirtualAuthenticator', { options: { protocol: 'ctap2', ctap2Version: 'ctap2_1', transport: 'internal', hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true } });
      return { page, key: (what, more = {}) => cdp.send(`WebAuthn.${what}`, { authenticatorId, ...more }) };
    }
    const looked = async (page, name) => {
      await page.evaluate(source);
      const { violations } = await page.evaluate(() => axe.run(document, { preload: false, runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
      must(!violations.length, `${name}: ${JSON.stringify(violations.map(v => [v.id, v.impact, v.nodes.map(n => n.target.join(' '))]))}`);
      must(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}: it scrolls sideways`);
      await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
    };
    const byPassword = async page => {
      await page.fill('#username', 'nora');
      await page.fill('#password', password);
      await page.click('button[value=sign_in]');
    };
    try {
      const { page, key } = await visitor(1280, 'light');
      await page.goto(`${idp}/account`);
      await looked(page, 'account-sign-in-wide-light');
      await byPassword(page);
      await page.waitForSelector('text=Add a passkey');
      await looked(page, 'account-wide-light');
      await page.fill('#name', 'Test laptop');
      await page.click('form[data-passkey=create] button');
      await page.waitForSelector('text=The passkey is added');
      const { credentials: [held] } = await key('getCredentials');
      must(held.isResidentCredential && held.rpId === 'localhost', JSON.stringify(held));
      must(!Buffer.from(held.userHandle, 'base64').toString().includes('nora'), 'the handle names her');
      await looked(page, 'account-passkey-wide-light');
      // An agent with a sign-in by password is told what is missing, signs her in once, and goes on.
      const weak = await visitor(1280, 'light', false);
      const first = await asking({});
      await weak.page.goto(first.url);
      await byPassword(weak.page);
      await weak.page.waitForURL(`${BACK}**`);
      const codeOf = at => new URL(at).searchParams.get('code');
      const redeemed = async (at, verifier) => post({ grant_type: 'authorization_code', code: codeOf(at), redirect_uri: BACK, code_verifier: verifier });
      const low = await redeemed(weak.page.url(), first.verifier);
      must(claims(low.id_token).acr === 'urn:passavant:acr:password', JSON.stringify(low));
      const refused = await exchange(low.id_token);
      must(refused.error === 'insufficient_user_authentication' && refused.acr_values === 'phr', JSON.stringify(refused));
      const step = await asking({ acr_values: refused.acr_values });
      const strong = await visitor(360, 'dark');
      await strong.key('addCredential', { credential: held });
      await strong.page.goto(step.url);
      await looked(strong.page, 'step-up-narrow-dark');
      // By keyboard: the button of the passkey is the last one.
      await strong.page.focus('form[data-passkey=get] button');
      await strong.page.keyboard.press('Enter');
      await strong.page.waitForURL(`${BACK}**`);
      const high = await redeemed(strong.page.url(), step.verifier);
      must(high.id_token && claims(high.id_token).acr === 'phr', JSON.stringify(high));
      const granted = await exchange(high.id_token);
      must(granted.status === 200 && granted.issued_token_type === ID_JAG, JSON.stringify(granted));

      // The device must verify the person, and its answer says so.
      const lazy = await visitor(1280, 'dark');
      await lazy.key('addCredential', { credential: { ...held, signCount: 50 } });
      await lazy.key('setResponseOverrideBits', { isBadUV: true });
      await lazy.page.goto(`${idp}/account`);
      await lazy.page.click('form[data-passkey=get] button');
      await lazy.page.waitForSelector('[role=alert]');
      await looked(lazy.page, 'passkey-refused-wide-dark');
      await lazy.key('setResponseOverrideBits', { isBadUV: false });
      await lazy.page.click('form[data-passkey=get] button');
      await lazy.page.waitForSelector('text=Test laptop');
      await looked(lazy.page, 'account-wide-dark');

      // One-time passwords: set up with the passkey's sign-in.
      await lazy.page.click('text=Set it up');
      await lazy.page.waitForSelector('svg');
      await looked(lazy.page, 'totp-wide-dark');
      const letters = (await lazy.page.textContent('text=Letters:')).replace('Letters:', '').replaceAll(' ', '');
      await lazy.page.fill('#code', '000000');
      await lazy.page.click('button[type=submit]');
      await lazy.page.waitForSelector('[role=alert]');
      must((await lazy.page.textContent('text=Letters:')).replace('Letters:', '').replaceAll(' ', '') === letters, 'another seed');
      await lazy.page.fill('#code', code(letters));
      await lazy.page.click('button[type=submit]');
      await lazy.page.waitForSelector('text=Recovery codes');
      await looked(lazy.page, 'recovery-codes-wide-dark');
      const recovery = await lazy.page.$$eval('.codes li', all => all.map(one => one.textContent));
      must(recovery.length === 10, recovery.join(' '));
      const narrow = await visitor(360, 'light', false);
      await narrow.page.goto(`${idp}/account`);
      await looked(narrow.page, 'account-sign-in-narrow-light');
      await byPassword(narrow.page);
      await narrow.page.waitForSelector('#code');
      await looked(narrow.page, 'second-factor-narrow-light');
      // The code of now was used a moment ago: the next one, or a recovery code.
      await narrow.page.fill('#code', recovery[0].toLowerCase());
      await narrow.page.keyboard.press('Enter');
      await narrow.page.waitForSelector('text=9 recovery codes are left');
      await looked(narrow.page, 'account-narrow-light');

      // Lost everything: a link, once.
      const { link } = made('user', 'recovery-link', 'nora');
      const lost = await visitor(360, 'dark', false);
      await lost.page.goto(link);
      must(await lost.page.inputValue('#code') === link.split('#')[1], 'the code is not filled in');
      must(!lost.page.url().includes('#'), 'the code stays in the address');
      await looked(lost.page, 'recover-narrow-dark');
      await lost.page.click('button[type=submit]');
      await lost.page.waitForSelector('text=Add a passkey');
      await looked(lost.page, 'account-narrow-dark');
      // A new password signs her out everywhere, and in again.
      await lost.page.fill('#new_password', 'another sentence of hers');
      await lost.page.fill('#repeated', 'another sentence of mine');
      await lost.page.keyboard.press('Enter');
      await lost.page.waitForSelector('text=are not the same');
      await looked(lost.page, 'password-refused-narrow-dark');
      await lost.page.fill('#new_password', 'another sentence of hers');
      await lost.page.fill('#repeated', 'another sentence of hers');
      await lost.page.keyboard.press('Enter');
      await lost.page.waitForSelector('text=The password is set');
      await looked(lost.page, 'password-set-narrow-dark');
      await lost.page.fill('#username', 'nora');
      await lost.page.fill('#password', 'another sentence of hers');
      await lost.page.keyboard.press('Enter');
      await lost.page.waitForSelector('#code');
      await narrow.page.goto(`${idp}/account`);
      await narrow.page.waitForSelector('text=to see your account');
      must(problems.length === 0, `the console says: ${problems.join('; ')}`);
    } finally {
      await browser.close();
    }
    const trail = made('audit', '--limit', '200').filter(one => /^(credential|sign_in)/.test(one.event));
    must(trail.some(one => one.details.reason === 'sign_in.passkey') && trail.some(one => one.event === 'credential.added'), JSON.stringify(trail.slice(0, 5)));
    return `screenshots in ${shots}`;
  });

  await row('passavant key-file', 'another key-encryption key follows the first: added, turned to, everything sealed anew, trimmed', async () => {
    const file = join(folder, 'passavant.key'), first = readFileSync(file, 'utf8').trim();
    const keyFile = step => run(E.PASSAVANT, ['key-file', step, '--config', config]);
    const refused = step => { try { keyFile(step); } catch (error) { return error.message; } throw new Error(`${step} was done`); };
    const kids = async () => (await (await fetch(`${idp}/jwks`)).json()).keys.map(key => key.kid).sort().join(' ');
    const before = await kids();
    must(refused('turn').includes('holds one key') && refused('trim').includes('holds one key'), 'with one key');
    keyFile('add');
    must(refused('add').includes('2 keys already'), 'a third key');
    must(refused('trim').includes('seals nothing yet'), 'trimmed before it was turned');
    const again = async () => { await server.stop(); server = await serve(); must(await kids() === before, 'other keys'); };
    await again();
    keyFile('turn');
    // Once more, as somebody does who has not seen the answer: nothing is turned back.
    const turned = readFileSync(file, 'utf8');
    must(keyFile('turn').includes('first already') && readFileSync(file, 'utf8') === turned, 'turned back');
    must(refused('trim').includes('not sealed under the first key'), 'trimmed too early');
    await again();
    for (let i = 0; !server.told().includes('everything is sealed under the first key'); i++) { must(i < 200, server.told()); await sleep(50); }
    // Another database than the one that is served, or none, proves nothing, and is not made.
    const elsewhere = spawnSync(E.PASSAVANT, ['key-file', 'trim', '--config', config], { encoding: 'utf8', env: { ...process.env, PASSAVANT__IDP__DATABASE: 'sqlite:elsewhere.db' } });
    must(elsewhere.status !== 0 && elsewhere.stderr.includes('there is no such database') && !existsSync(join(folder, 'elsewhere.db')) && readFileSync(file, 'utf8') === turned, elsewhere.stdout + elsewhere.stderr);
    keyFile('trim');
    // What was taken out is not gone: backups need it.
    const kept = readdirSync(folder).filter(name => name.startsWith('passavant.key.before-'));
    must(kept.length === 1 && readFileSync(join(folder, kept[0]), 'utf8').trim() === first && (statSync(join(folder, kept[0])).mode & 0o777) === 0o600, kept.join(' '));
    const last = readFileSync(file, 'utf8').trim();
    must(!last.includes('\n') && last !== first, last.length);
    await again();
    // The earlier key alone opens nothing, and nothing is overwritten.
    await server.stop();
    writeFileSync(file, `${first}\n`, { mode: 0o600 });
    const wrong = spawn(E.PASSAVANT, ['serve', '--config', config], { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [wrong.stdout, wrong.stderr]) stream.on('data', chunk => { said += chunk; });
    const code = await new Promise(r => wrong.on('close', r));
    must(code !== 0 && said.includes('cannot be opened with this key file'), said);
    writeFileSync(file, `${last}\n`, { mode: 0o600 });
    server = await serve();
    must(await kids() === before, 'other keys');
  });
  const debian = spawnSync('dpkg-query', ['-W', '-f=${Version}', 'softhsm2'], { encoding: 'utf8' }).stdout;
  await row(`SoftHSM ${debian}`, 'the key-encryption key moves into a PKCS#11 token, and from one key there to the next; a wrong PIN, a missing key and another token stop the start', async () => {
    const file = join(folder, 'passavant.key'), own = readFileSync(config, 'utf8'), tokens = join(scratch, 'softhsm');
    mkdirSync(join(tokens, 'tokens'), { recursive: true });
    writeFileSync(join(tokens, 'softhsm2.conf'), `directories.tokendir = ${join(tokens, 'tokens')}\nobjectstore.backend = file\nlog.level = ERROR\n`);
    process.env.SOFTHSM2_CONF = join(tokens, 'softhsm2.conf');
    for (const label of ['acme', 'other']) run('softhsm2-util', ['--init-token', '--free', '--label', label, '--pin', '1234', '--so-pin', '5678']);
    writeFileSync(join(folder, 'passavant.pin'), '1234\n', { mode: 0o600 });
    const module = ['/usr/lib/softhsm/libsofthsm2.so', ...readdirSync('/usr/lib').map(name => `/usr/lib/${name}/softhsm/libsofthsm2.so`)].find(existsSync);
    const keys = (more, withFile = true) => writeFileSync(config, own.replace(/\[keys\]\n[^[]*/, `[keys]\n${withFile ? 'file = "passavant.key"\n' : ''}[keys.pkcs11]\nmodule = "${module}"\npin_file = "passavant.pin"\n${more}\n`));
    const step = name => spawnSync(E.PASSAVANT, ['key-file', name, '--config', config], { encoding: 'utf8' });
    const done = name => { const { status, signal, stdout, stderr } = step(name); must(status === 0, `${name}: ${signal ?? ""} ${stderr}`); return stdout; };
    const refusedStart = async says => {
      const wrong = spawn(E.PASSAVANT, ['serve', '--config', config], { stdio: ['ignore', 'pipe', 'pipe'] });
      let said = '';
      for (const stream of [wrong.stdout, wrong.stderr]) stream.on('data', chunk => { said += chunk; });
      const code = await new Promise(r => wrong.on('close', r));
      must(code !== 0 && said.includes(says) && !said.includes('1234'), said);
    };
    const kids = async () => (await (await fetch(`${idp}/jwks`)).json()).keys.map(key => key.kid).sort().join(' ');
    const before = await kids();
    const again = async sealed => {
      server = await serve();
      must(await kids() === before, 'other keys');
      if (sealed) for (let i = 0; !server.told().includes('everything is sealed under the first key'); i++) { must(i < 200, server.told()); await sleep(50); }
    };
    await server.stop();
    keys('token = "acme"\nkey = "kek-1"');
    await refusedStart('has no AES key `kek-1`');
    // The more there is in the token, the longer its session takes to close: the program waits for that.
    for (let i = 0; i < 80; i++) { keys(`token = "acme"\nkey = "other-${i}"`); done('generate'); }
    keys('token = "acme"\nkey = "kek-1"');
    must(done('generate').includes('does not give away') && done('generate').includes('already'), 'generate');
    must(step('check').status !== 0, 'nothing is sealed there yet');
    await again(true);
    done('check');
    must(step('trim').stderr.includes('names a token'), 'trim');
    // The file is not needed any more.
    await server.stop();
    writeFileSync(`${file}.away`, readFileSync(file), { mode: 0o600 });
    rmSync(file);
    keys('token = "acme"\nkey = "kek-1"', false);
    await again(false);
    must(step('add').stderr.includes('names no key file'), 'add');
    // The next key there, and the first one is not needed any more either.
    await server.stop();
    keys('token = "acme"\nkey = "kek-2"\nearlier = ["kek-1"]', false);
    done('generate');
    await again(true);
    done('check');
    await server.stop();
    keys('token = "acme"\nkey = "kek-2"', false);
    await again(false);
    await server.stop();
    // Others open nothing, and overwrite nothing.
    keys('token = "acme"\nkey = "kek-1"', false);
    await refusedStart('cannot be opened with this key file');
    keys('token = "other"\nkey = "kek-2"', false);
    await refusedStart('has no AES key');
    keys('token = "nowhere"\nkey = "kek-2"', false);
    await refusedStart('0 tokens are labelled `nowhere`');
    writeFileSync(join(folder, 'passavant.pin'), '4321\n', { mode: 0o600 });
    keys('token = "acme"\nkey = "kek-2"', false);
    await refusedStart('refuses this PIN');
    writeFileSync(join(folder, 'passavant.pin'), '1234\n', { mode: 0o600 });
    // A key that the token gives away, and one of 128 bits.
    for (const [label, bits, more] of [['weak', 16, ''], ['open', 32, '--extractable']]) {
      run('pkcs11-tool', ['--module', module, '--token-label', 'acme', '--login', '--pin', '1234', '--keygen', '--key-type', `AES:${bits}`, '--label', label, ...(more ? [more] : [])]);
      keys(`token = "acme"\nkey = "${label}"\nearlier = ["kek-2"]`, false);
      await refusedStart(bits === 16 ? 'is not one of 256 bits' : 'can be read out of the token');
    }
    keys('token = "acme"\nkey = "kek-2"', false);
    await again(false);
  });
  await row(`SoftHSM ${debian} behind a module with faults`, 'a token that is slow, fails or hangs holds up nobody who needs it not, and no PIN is tried twice', async () => {
    const own = readFileSync(config, 'utf8'), module = /^module = "(.*)"$/m.exec(own)[1];
    const shim = join(scratch, 'pkcs11-faults.so'), fault = join(scratch, 'pkcs11-fault'), logins = join(scratch, 'pkcs11-logins');
    run('cc', ['-shared', '-fPIC', '-o', shim, new URL('pkcs11-faults.c', import.meta.url).pathname, '-ldl']);
    Object.assign(process.env, { PKCS11_BEHIND: module, PKCS11_FAULT: fault, PKCS11_LOGINS: logins });
    await server.stop();
    writeFileSync(config, own.replace(module, shim));
    server = await serve();
    const timed = async path => { const began = Date.now(); const reply = await fetch(`${idp}${path}`, { signal: AbortSignal.timeout(20000) }); await reply.text(); return [reply.status, Date.now() - began]; };
    const admin = (...args) => spawnSync(E.PASSAVANT, ['admin', '--config', config, ...args], { encoding: 'utf8' });
    const jwks = async () => (await (await fetch(`${idp}/jwks`)).json()).keys.length;
    const count = await jwks();
    // What visitors cause needs no token: their pages, and the keys of everybody else.
    writeFileSync(fault, '0 5000\n');
    const pages = await Promise.all(Array.from({ length: 12 }, () => timed('/account')));
    must(pages.every(([status, ms]) => status === 200 && ms < 4000), JSON.stringify(pages));
    // A hanging one: who needs it is refused, the others wait for nothing.
    writeFileSync(fault, '0 20000\n');
    const waiting = spawn(E.PASSAVANT, ['admin', '--config', config, 'key', 'rotate'], { stdio: ['ignore', 'pipe', 'pipe'] });
    const refused = new Promise(r => waiting.on('close', r));
    await sleep(4000);
    const others = await Promise.all(['/jwks', '/account', '/.well-known/openid-configuration'].map(timed));
    must(others.every(([status, ms]) => status === 200 && ms < 2000), JSON.stringify(others));
    must(await refused !== 0, 'a key was made by a token that hangs');
    // One that fails: a change of the policy takes no signing key away.
    writeFileSync(fault, '5 0\n');
    for (let i = 0; admin('group', 'add', `faults-${i}`).status !== 0; i++) { must(i < 100, 'no group'); await sleep(300); }
    must(await jwks() === count, 'a key is gone');
    must((await timed('/account'))[0] === 200, '/account');
    rmSync(fault);
    for (let i = 0; admin('key', 'rotate').status !== 0; i++) { must(i < 100, 'no key'); await sleep(300); }
    must(await jwks() === count + 1, 'the new key');
    // A PIN that is refused is tried once, however often the token is needed.
    const before = readFileSync(logins, 'utf8').length;
    writeFileSync(`${fault}.pin`, '');
    for (let i = 0; i < 5; i++) must(admin('key', 'rotate').status !== 0, 'rotate');
    must(readFileSync(logins, 'utf8').length === before + 1, readFileSync(logins, 'utf8').length - before);
    rmSync(`${fault}.pin`);
    await server.stop();
    writeFileSync(config, own);
    server = await serve();
  });
  application.close();
  await server.stop();
}
