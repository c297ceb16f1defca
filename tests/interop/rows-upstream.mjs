// The IdP in front of other identity providers: oidc-provider, a second Passavant, and Keycloak, at which people sign
// in, which are asked later on whether they are still there, and which tell that somebody has signed out.
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { createLocalJWKSet, createRemoteJWKSet, jwtVerify } from 'jose';
import { browse } from './browser.mjs';
import { keycloak } from './keycloak.mjs';

const claims = token => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
const header = token => JSON.parse(Buffer.from(token.split('.')[0], 'base64url'));
const seconds = () => Math.floor(Date.now() / 1000);
const sleep = ms => new Promise(r => setTimeout(r, ms));
const ID_JAG = 'urn:ietf:params:oauth:token-type:id-jag', EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
/** Where the application of the rows returns to; nothing listens there. */
const BACK = 'http://127.0.0.1:8765/callback';

export default async function rows(kit) {
  const { row, run, must, version, enrol, passavant, node24, freePort, isFree, here, scratch, shots, E } = kit;
  const party = `oidc-provider ${version('oidc-provider')}`;
  const children = [];
  process.on('exit', () => children.forEach(child => child.kill('SIGTERM')));
  const same = (what, found, wanted) => must(JSON.stringify(found) === JSON.stringify(wanted), `${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(wanted)}`);

  /** Starts a program, and waits until something listens on its port; `stop` returns when nothing does. */
  async function start(name, program, args, port, env = {}) {
    const log = join(scratch, `upstream-${name}.log`), file = openSync(log, 'a');
    const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', file, file] });
    const ended = new Promise(r => child.on('close', r));
    children.push(child);
    for (let i = 0; await isFree(port); i++) {
      must(i < 300 && child.exitCode === null, `${name} did not come up:\n${readFileSync(log, 'utf8')}`);
      await sleep(50);
    }
    return { told: () => readFileSync(log, 'utf8'), stop: async () => { child.kill('SIGTERM'); await ended; }, kill: async () => { child.kill('SIGKILL'); await ended; } };
  }

  // ---------- oidc-provider ----------
  let providers = 0;
  /** An oidc-provider with one client, `front`, for `passavant` as the upstream `name`, and the people `people`. */
  async function provider(name, company, people, { client = {}, configuration = {}, byScope = false } = {}) {
    const port = await freePort(), issuer = `http://localhost:${port}`, folder = join(scratch, `op-${++providers}`);
    mkdirSync(folder);
    const write = (file, value) => writeFileSync(join(folder, file), JSON.stringify(value));
    const front = {
      client_id: 'front', redirect_uris: [`${company.idp}/callback/${name}`], grant_types: ['authorization_code', 'refresh_token'],
      token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'ES256', jwks_uri: `${company.idp}/jwks`, ...client,
    };
    for (const absent of Object.keys(front).filter(key => front[key] === undefined)) delete front[absent];
    write('settings.json', { port, issuer, byScope, configuration: { clients: [front], ...configuration } });
    write('people.json', people);
    const begin = () => start(`op-${name}-${providers}`, node24, [join(here, 'op.mjs'), folder], port);
    let running = await begin();
    return {
      issuer, port,
      set: (sub, more) => { people[sub] = { ...people[sub], ...more }; write('people.json', people); },
      /** Its requests at one route, oldest first. */
      seen: route => (existsSync(join(folder, 'seen.jsonl')) ? readFileSync(join(folder, 'seen.jsonl'), 'utf8').trim().split('\n').map(line => JSON.parse(line)) : []).filter(line => line.route === route),
      revoke: async sub => Number(await (await fetch(`${issuer}/revoke/${sub}`)).text()),
      stop: () => running.stop(),
      again: async () => { running = await begin(); },
    };
  }
  const person = (username, more = {}, rest = {}) => ({ username, password: `the password of ${username}`, claims: { preferred_username: username, ...more }, amr: ['pwd'], ...rest });

  // ---------- what an application does at a company ----------
  /** The URL of a sign-in, and the verifier of its code. */
  async function asking(company, more = {}) {
    const verifier = crypto.randomUUID() + crypto.randomUUID();
    const challenge = Buffer.from(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier))).toString('base64url');
    const query = new URLSearchParams({ response_type: 'code', client_id: company.client.id, redirect_uri: BACK, scope: 'openid profile email groups offline_access', state: 's', code_challenge: challenge, code_challenge_method: 'S256', ...more });
    return { url: `${company.idp}/authorize?${query}`, verifier };
  }
  const post = async (company, form) => {
    const answer = await fetch(`${company.idp}/token`, { method: 'POST', headers: { authorization: `Basic ${btoa(`${company.client.id}:${company.client.secret}`)}` }, body: new URLSearchParams(form) });
    return { status: answer.status, ...await answer.json() };
  };
  /** Signs in, and redeems the code. `who` is as `browse` takes it. */
  async function signIn(company, upstream, who, more = {}) {
    const { url, verifier } = await asking(company, { ...(upstream && { upstream }), ...more });
    let back;
    try { back = await browse(url, BACK, who); } catch (error) { throw new Error(`${error.message.slice(0, 200)}\n${company.admin('audit', '--limit', '1')}`); }
    must(back.url?.searchParams.get('code'), `no code: ${back.url ?? back.html}`);
    const tokens = await post(company, { grant_type: 'authorization_code', code: back.url.searchParams.get('code'), redirect_uri: BACK, code_verifier: verifier });
    must(tokens.id_token && tokens.refresh_token, JSON.stringify(tokens));
    return { ...tokens, claims: claims(tokens.id_token), trail: back.trail, jar: back.jar };
  }
  const as = person => ({ user: person.username, pass: person.password });
  const exchange = (company, kind, token, { audience, resource } = company.target) => post(company, {
    grant_type: EXCHANGE, requested_token_type: ID_JAG, subject_token: token, subject_token_type: `urn:ietf:params:oauth:token-type:${kind}`, audience, resource,
  });
  /** The status and the scope that the MCP server's authorization server answers to an ID-JAG. */
  async function redeem(company, assertion) {
    const answer = await fetch(`${company.canvas.ras}/token`, { method: 'POST', headers: { authorization: `Basic ${btoa(`acme-canvas:${company.secret('canvas')}`)}` }, body: new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion }) });
    const { scope, error } = await answer.json();
    return [answer.status, scope ?? error];
  }
  const refresh = (company, token) => post(company, { grant_type: 'refresh_token', refresh_token: token });
  /** The newest rows of the audit trail, the latest first. */
  const trail = (company, ...more) => JSON.parse(company.admin('audit', ...more)).reverse();
  const users = company => JSON.parse(company.admin('user', 'list')).map(user => user.username).sort();

  // ---------- a company ----------
  let companies = 0;
  /** `passavant serve` with an IdP and a RAS, for an application, an MCP server and the group `engineering`. */
  async function serve(what = '', env = {}) {
    const folder = join(scratch, `upstream-company-${++companies}`), config = join(folder, 'passavant.toml');
    run(E.PASSAVANT, ['init', folder]);
    const [port, ras, admins] = [await freePort(), await freePort(), await freePort()];
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
failures_per_minute = 1000
${what}
[[ras]]
name = "canvas"
issuer = "${canvas.ras}"
listen = "127.0.0.1:${ras}"
database = "sqlite:canvas.db"
`);
    const name = `company-${companies}`, begin = () => start(name, E.PASSAVANT, ['serve', '--config', config], port, env);
    let server = await begin();
    for (let i = 0; !server.told().includes('ready'); i++) { must(i < 200, server.told()); await sleep(20); }
    const admin = (...args) => run(E.PASSAVANT, ['admin', '--config', config, '--json', ...args]);
    const scopes = ['--scopes', 'canvas.read'];
    admin('group', 'add', 'engineering');
    admin('--ras', 'canvas', 'resource', 'add', canvas.mcp, ...scopes);
    admin('--ras', 'canvas', 'trust', 'add', idp, '--just-in-time');
    admin('--ras', 'canvas', 'client', 'add', 'Agent', '--id', 'acme-canvas', '--secret-out', join(folder, 'canvas.secret'));
    admin('server', 'add', canvas.ras, '--name', 'Canvas', '--release', 'acr', '--release', 'amr', '--release', 'auth_time');
    admin('resource', 'add', canvas.mcp, '--server', canvas.ras, '--name', 'Canvas', ...scopes);
    admin('client', 'add', 'Agent', '--id', 'agent', '--redirect-uri', 'http://127.0.0.1/callback', '--secret-out', join(folder, 'agent.secret'));
    admin('connection', 'add', 'engineering-canvas', '--client', 'agent', '--audience', canvas.ras, '--ras-client-id', 'acme-canvas', '--resource', canvas.mcp, ...scopes, '--group', 'engineering');
    const secret = name => readFileSync(join(folder, `${name}.secret`), 'utf8').trim();
    return { idp, canvas, admin, config, secret, stop: () => server.stop(), kill: () => server.kill(), again: async () => { const before = server.told().split('ready').length; server = await begin(); for (let i = 0; server.told().split('ready').length === before; i++) { must(i < 500, server.told()); await sleep(20); } }, told: () => server.told(), client: { id: 'agent', secret: secret('agent') }, target: { audience: canvas.ras, resource: canvas.mcp } };
  }

  let clocks = 0;
  /** The environment of programs whose clock can be moved, and how many seconds it is to be ahead. */
  const movable = () => {
    const clock = join(scratch, `upstream-clock-${++clocks}`), library = join(scratch, 'moved-clock.so'), source = join(scratch, 'moved-clock.c');
    writeFileSync(clock, Buffer.alloc(8));
    const later = amount => { const file = openSync(clock, 'r+'), bytes = Buffer.alloc(8); bytes.writeBigInt64LE(BigInt(amount)); writeSync(file, bytes, 0, 8, 0); closeSync(file); };
    writeFileSync(source, `#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static volatile long *off;
__attribute__((constructor)) static void begin(void) {
  off = mmap(0, 8, PROT_READ, MAP_SHARED, open(getenv("MOVED_CLOCK"), O_RDONLY), 0);
}
int clock_gettime(clockid_t which, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int done = real(which, t);
  if (!done && which == CLOCK_REALTIME) t->tv_sec += *off;
  return done;
}`);
    if (!existsSync(library)) run('cc', ['-shared', '-fPIC', '-o', library, source, '-ldl']);
    return { env: { LD_PRELOAD: library, MOVED_CLOCK: clock }, later };
  };

  const company = await serve();
  const add = (company, name, issuer, ...more) => JSON.parse(company.admin('upstream', 'add', name, '--issuer', issuer, '--client-id', 'front', ...more));

  await row(party, 'button, private_key_jwt by our keys, RS256; groups and classes mapped; its acr, amr, auth_time in our tokens; ID-JAG, and an access token for it', async () => {
    const ann = person('ann', { name: 'Ann Example', email: 'ann@acme.example', email_verified: true, groups: ['Makers', 'Others'] }, { acr: 'urn:corp:two', amr: ['pwd', 'otp'] });
    const op = await provider('corp', company, { 'sub-of-ann': ann }, { configuration: { acrValues: ['urn:corp:two'] } });
    const made = add(company, 'corp', op.issuer, '--display-name', 'Corp', '--just-in-time', '--group', 'Makers=engineering', '--acr', 'urn:corp:two=urn:acme:strong', '--scopes', 'groups');
    same('redirect URI', made.redirect_uri, `${company.idp}/callback/corp`);
    // The button is a link of the page.
    const { url } = await asking(company), page = await (await fetch(url)).text();
    const button = /<a class="button" href="([^"]+)">Sign in with Corp<\/a>/.exec(page)?.[1].replaceAll('&amp;', '&');
    must(button && new URL(button, url).searchParams.get('upstream') === 'corp', page);
    const began = seconds(), tokens = await signIn(company, 'corp', as(ann));
    const { acr, amr, auth_time, groups, preferred_username, email, email_verified, name } = tokens.claims;
    // The address is in no domain of the upstream: it is not known to be hers.
    same('ID token', { acr, amr, groups, preferred_username, email, email_verified, name }, { acr: 'urn:acme:strong', amr: ['pwd', 'otp'], groups: ['engineering'], preferred_username: 'ann', email: 'ann@acme.example', email_verified: false, name: 'Ann Example' });
    must(auth_time >= began && auth_time <= seconds(), `auth_time ${auth_time}`);
    must(tokens.claims.sub !== 'sub-of-ann', 'its subject is ours');
    const [asked] = op.seen('token');
    const keys = await (await fetch(`${company.idp}/jwks`)).json();
    must(asked.assertion.header.alg === 'ES256' && keys.keys.some(key => key.kid === asked.assertion.header.kid), JSON.stringify(asked));
    same('assertion', { aud: asked.assertion.claims.aud, iss: asked.assertion.claims.iss, sub: asked.assertion.claims.sub }, { aud: op.issuer, iss: 'front', sub: 'front' });
    same('PKCE', op.seen('authorization')[0].params.code_challenge_method, 'S256');
    // By ID token and by refresh token; what comes of it is good at the MCP server's authorization server.
    for (const [kind, token] of [['id_token', tokens.id_token], ['refresh_token', tokens.refresh_token]]) {
      const { status, access_token, issued_token_type } = await exchange(company, kind, token);
      must(status === 200 && issued_token_type === ID_JAG && claims(access_token).sub === tokens.claims.sub && header(access_token).typ === 'oauth-id-jag+jwt', `${kind}: ${status}`);
      const told = claims(access_token);
      same(`${kind}: what the ID-JAG tells`, [told.acr, told.amr, told.auth_time], [acr, amr, auth_time]);
      same(`${kind}: redeemed`, await redeem(company, access_token), [200, 'canvas.read']);
    }
    // She is the same person at her next sign-in, and what she lost there is lost here.
    op.set('sub-of-ann', { claims: { ...ann.claims, preferred_username: 'ann.renamed', groups: ['Others'] } });
    const again = await signIn(company, 'corp', as(ann));
    same('again', [again.claims.sub, again.claims.preferred_username, again.claims.groups ?? []], [tokens.claims.sub, 'ann', []]);
    const refused = await exchange(company, 'id_token', again.id_token);
    same('without the group', [refused.status, refused.error], [400, 'access_denied']);
    // An application that asks for a class of ours: there it is asked for by its own name.
    await signIn(company, 'corp', as(ann), { acr_values: 'urn:acme:strong' });
    same('acr_values', op.seen('authorization').at(-1).params.acr_values, 'urn:corp:two');
    same('links', JSON.parse(company.admin('upstream', 'links', 'corp')).map(link => [link.issuer, link.subject]), [[op.issuer, 'sub-of-ann']]);
    same('on record', trail(company, '--event', 'person.added').map(({ outcome, details }) => [outcome, details.issuer, details.subject]), [['granted', op.issuer, 'sub-of-ann']]);
    company.admin('upstream', 'delete', 'corp');
    await op.stop();
  });

  await row(party, 'an upstream of the config: each start makes it what the file says, with its groups; a secret from a file; another issuer under its name stops the start', async () => {
    const own = await serve(), written = readFileSync(own.config, 'utf8'), secret = join(own.config, '..', 'front.secret'), port = new URL(own.idp).port;
    const ida = person('ida', { groups: ['Makers'] });
    const op = await provider('corp', own, { 'sub-of-ida': ida }, { client: { token_endpoint_auth_method: 'client_secret_basic', token_endpoint_auth_signing_alg: undefined, jwks_uri: undefined, client_secret: 'a secret of thirty-two characters' } });
    writeFileSync(secret, 'a secret of thirty-two characters\n', { mode: 0o600 });
    const acts = () => trail(own).filter(({ details }) => details.by === 'the config').map(({ event }) => event);
    let running = own;
    const begin = async (more, issuer = op.issuer) => {
      await running.stop();
      writeFileSync(own.config, written.replace('[[ras]]', `[[idp.upstream]]\nname = "corp"\ndisplay_name = "Corp"\nissuer = "${issuer}"\nclient_id = "front"\nclient_secret_file = "front.secret"\njust_in_time = true\nscopes = ["groups"]\n${more}\n[[ras]]`));
      running = await start(`configured-${issuer.length}-${more.length}`, E.PASSAVANT, ['serve', '--config', own.config], port);
      for (let i = 0; !running.told().includes('ready'); i++) { must(i < 200, running.told()); await sleep(20); }
    };
    await begin('groups = { Makers = "engineering", Writers = "editors" }');
    same('acts', acts(), ['admin.create group', 'admin.create upstream']);
    const first = await signIn(own, 'corp', as(ida));
    same('signed in', [first.claims.preferred_username, first.claims.groups], ['ida', ['engineering']]);
    await begin('groups = { Makers = "engineering", Writers = "editors" }');
    same('the same once more', acts().length, 2);
    // What an administrator changed meanwhile is changed back; who came is who they were.
    own.admin('upstream', 'change', 'corp', '--just-in-time', 'false');
    await begin('groups = { Makers = "editors", Nobody = "engineering" }');
    same('changed', acts().at(-1), 'admin.change upstream');
    const again = await signIn(own, 'corp', as(ida));
    same('the same person, by the other group', [again.claims.sub, again.claims.groups], [first.claims.sub, ['editors']]);
    await running.stop();
    writeFileSync(own.config, readFileSync(own.config, 'utf8').replace(op.issuer, 'https://another.example'));
    const wrong = spawnSync(E.PASSAVANT, ['serve', '--config', own.config], { encoding: 'utf8', timeout: 20_000 });
    must(wrong.status === 1 && wrong.stderr.includes('people are known by these'), wrong.stdout + wrong.stderr);
    must(!(running.told() + wrong.stdout + wrong.stderr).includes('thirty-two'), 'the secret');
    // What another one has meanwhile by an administrator's act keeps no server from starting: it stays as it is.
    await begin('domains = ["corp.example"]');
    own.admin('upstream', 'change', 'corp', '--domain', '-');
    own.admin('upstream', 'add', 'other', '--issuer', 'https://other.example', '--client-id', 'front', '--domain', 'corp.example');
    await begin('domains = ["corp.example"]\nasks_consent = false');
    must(running.told().includes('stays as it is') && running.told().includes('sign in at the upstream `other` already'), running.told());
    own.admin('upstream', 'delete', 'other');
    // All that is wrong at once, by `check` as by `serve`, and then nothing is written.
    await running.stop();
    const bad = (name, more) => `[[idp.upstream]]\nname = "${name}"\nissuer = "https://${name}.example"\nclient_id = "front"\n${more}\n`;
    writeFileSync(join(own.config, '..', 'open.secret'), 'a secret of thirty-two characters\n', { mode: 0o644 });
    writeFileSync(own.config, written.replace('[[ras]]', `${bad('good', 'groups = { A = "new-group" }')}${bad('one', 'client_secret_file = "open.secret"')}${bad('two', 'domains = ["no domain"]')}${bad('three', 'preset = "google"')}[[ras]]`));
    for (const step of ['check', 'serve']) {
      const { status, stdout, stderr } = spawnSync(E.PASSAVANT, [step, '--config', own.config], { encoding: 'utf8', timeout: 20_000 });
      for (const says of ['idp.upstream[1] `one`', 'open.secret', 'idp.upstream[2] `two`', 'idp.upstream[3] `three`', 'hosted_domains'])
        must(status === 1 && stderr.includes(says), `${step}: no ${says} in\n${stdout}${stderr}`);
    }
    await begin('');
    must(!own.admin('group', 'list').includes('new-group'), 'half of it was written');
    await running.stop();
    await op.stop();
  });

  await row(party, 'an address that is typed, or hinted, in a domain of an upstream leads there, prefilled; any other asks for a password here', async () => {
    const lea = person('lea', { email: 'Lea@Lea.Example', email_verified: true });
    const op = await provider('lea', company, { 'sub-of-lea': lea });
    add(company, 'lea', op.issuer, '--just-in-time', '--domain', 'lea.example');
    const { url } = await asking(company), leads = location => location?.startsWith(`${op.issuer}/auth?`) && new URL(location).searchParams.get('login_hint');
    const page = await fetch(url), text = await page.text(), cookie = page.headers.getSetCookie().map(line => line.split(';')[0]).join('; ');
    must(text.includes('E-mail address or user name') && !text.includes('type="password"'), text);
    const csrf = /name="csrf" value="([^"]+)"/.exec(text)[1];
    const typed = async username => fetch(url, { method: 'POST', redirect: 'manual', headers: { cookie, origin: company.idp }, body: new URLSearchParams({ csrf, username, answer: 'sign_in' }) });
    const there = await typed('lea@LEA.example');
    same('typed', [there.status, leads(there.headers.get('location'))], [303, 'lea@LEA.example']);
    for (const other of ['lea', 'lea@other.example', 'lea@lea.example.org', 'lea@sub.lea.example']) {
      const here = await typed(other), asked = await here.text();
      must(here.status === 200 && asked.includes('type="password"') && asked.includes(`value="${other}"`), `${other}: ${here.status} ${asked}`);
    }
    const hinted = await fetch((await asking(company, { login_hint: 'lea@lea.example' })).url, { redirect: 'manual' });
    same('login_hint', [hinted.status, leads(hinted.headers.get('location'))], [303, 'lea@lea.example']);
    // An address in its own domain counts as verified.
    const tokens = await signIn(company, undefined, as(lea), { login_hint: 'lea@lea.example' });
    same('ID token', [tokens.claims.preferred_username, tokens.claims.email, tokens.claims.email_verified], ['lea', 'Lea@Lea.Example', true]);
    company.admin('upstream', 'delete', 'lea');
    await op.stop();
  });

  await row('Chromium', 'the sign-in page in front of an upstream: by its button, and by an address that is typed, there and back; a refusal there is told', async () => {
    const program = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync);
    must(program, 'chromium is not installed');
    const eli = person('eli@eli.example', { email: 'eli@eli.example' });
    const op = await provider('eli', company, { 'sub-of-eli': eli });
    add(company, 'eli', op.issuer, '--just-in-time', '--domain', 'eli.example', '--display-name', 'Eli & Co');
    const application = createServer((_, answer) => answer.end('back at the application')).listen(0, '127.0.0.1');
    await new Promise(r => application.once('listening', r));
    const callback = `http://127.0.0.1:${application.address().port}/callback`;
    const { chromium } = await import('playwright-core');
    const browser = await chromium.launch({ executablePath: program, args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-sync', '--no-first-run'] });
    try {
      const problems = [];
      for (const [way, width, colorScheme] of [['button', 320, 'dark'], ['address', 1200, 'light']]) {
        const page = await (await browser.newContext({ viewport: { width, height: 700 }, colorScheme })).newPage();
        page.on('console', message => { if (['error', 'warning'].includes(message.type())) problems.push(message.text()); });
        await page.goto((await asking(company, { redirect_uri: callback })).url);
        await page.screenshot({ path: join(shots, `sign-in-upstream-${way}.png`) });
        must(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${way}: it scrolls sideways`);
        if (way === 'button') await page.click('text=Sign in with Eli & Co');
        else {
          await page.waitForFunction(() => document.activeElement.id === 'username');
          await page.keyboard.type('eli@eli.example');
          await page.keyboard.press('Enter');
        }
        await page.waitForURL(`${op.issuer}/interaction/**`);
        await page.fill('[name=username]', eli.username);
        await page.fill('[name=password]', eli.password);
        await page.keyboard.press('Enter');
        await page.waitForURL(`${callback}**`);
        const back = new URL(page.url()).searchParams;
        must(back.get('code') && back.get('iss') === company.idp, page.url());
        await page.context().close();
      }
      // What the upstream refuses is told on a page of ours, not in its words.
      const page = await browser.newPage();
      await page.goto((await asking(company, { redirect_uri: callback, upstream: 'eli' })).url);
      const state = op.seen('authorization').at(-1).params.state;
      await page.goto(`${company.idp}/callback/eli?${new URLSearchParams({ error: 'access_denied', error_description: 'Call 555', state, iss: op.issuer })}`);
      const text = await page.textContent('body');
      must(text.includes('did not let you in, or you cancelled') && !text.includes('555'), text);
      const [{ details }] = trail(company, '--limit', '1');
      same('on record', [details.reason, details.detail, details.issuer], ['sign_in.upstream_refused', 'access_denied', op.issuer]);
      same('the console', problems.filter(text => !/a status of 40\d/.test(text)), []);
    } finally {
      await browser.close();
      application.close();
    }
    company.admin('upstream', 'delete', 'eli');
    await op.stop();
  });

  await row('passavant login', 'a computer is enrolled by way of an upstream; it ends with the person there', async () => {
    const { env, later } = movable(), own = await serve('upstream_check_minutes = 1', env), home = join(scratch, 'upstream-desk');
    // How she signed in is not told: `passavant login` takes an ID token without methods.
    const zoe = person('zoe@zoe.example', { preferred_username: 'zoe', groups: ['Makers'] }, { amr: undefined });
    const op = await provider('zoe', own, { 'sub-of-zoe': zoe }, { configuration: { clockTolerance: 9000 } });
    add(own, 'zoe', op.issuer, '--just-in-time', '--domain', 'zoe.example', '--group', 'Makers=engineering', '--scopes', 'groups');
    own.admin('connection', 'add', 'desk', '--client', 'passavant', '--audience', own.canvas.ras, '--resource', own.canvas.mcp, '--scopes', 'canvas.read', '--group', 'engineering');
    const done = await enrol('zoe@zoe.example', home, { company: { idp: own.idp, password: () => zoe.password } });
    must(done.out.includes('Signed in as zoe'), done.out);
    // Each computer asks for a new sign-in, there too.
    same('asked there', [...new Set(op.seen('authorization').map(line => [line.params.prompt, line.params.login_hint].join()))], ['login consent,zoe@zoe.example']);
    must(passavant(home, 'servers').includes('Canvas'), passavant(home, 'servers'));
    op.set('sub-of-zoe', { disabled: true });
    // The clock of both moves on; its access token has expired.
    later(3700);
    const refused = spawnSync(E.PASSAVANT, ['servers'], { env: { ...process.env, ...env, PASSAVANT_HOME: home }, encoding: 'utf8' });
    must(refused.status !== 0 && refused.stderr.includes('passavant login'), refused.stdout + refused.stderr);
    same('why', trail(own, '--event', 'upstream_check').map(({ outcome, details }) => [outcome, details.reason]), [['refused', 'upstream_check.ended']]);
    await own.stop();
    await op.stop();
  });

  await row(party, 'it tells neither class nor methods nor time: nor do our tokens, and they are good for an ID-JAG and an access token; asked for a max_age, it tells the time', async () => {
    const bea = person('bea', { groups: ['Makers'] }, { amr: undefined });
    // As it is by default: auth_time is in its ID tokens where max_age was asked for.
    const op = await provider('bare', company, { 'sub-of-bea': bea }, { configuration: { claims: { openid: ['sub'], profile: ['preferred_username'], groups: ['groups'] }, scopes: ['openid', 'profile', 'groups'] } });
    add(company, 'bare', op.issuer, '--just-in-time', '--group', 'Makers=engineering', '--scopes', 'groups');
    const tokens = await signIn(company, 'bare', as(bea));
    same('ID token', [tokens.claims.preferred_username, 'acr' in tokens.claims, 'amr' in tokens.claims, 'auth_time' in tokens.claims], ['bea', false, false, false]);
    for (const [kind, token] of [['id_token', tokens.id_token], ['refresh_token', tokens.refresh_token]]) {
      const { status, access_token, error_description } = await exchange(company, kind, token);
      must(status === 200, `${kind}: ${error_description}\n${company.admin('audit', '--limit', '1')}`);
      const told = claims(access_token);
      same(`${kind}: what the ID-JAG tells`, ['acr' in told, 'amr' in told, 'auth_time' in told], [false, false, false]);
      same(`${kind}: redeemed`, await redeem(company, access_token), [200, 'canvas.read']);
    }
    const began = seconds(), fresh = await signIn(company, 'bare', { ...as(bea), jar: tokens.jar }, { max_age: '600' });
    must(fresh.claims.auth_time >= began - 60 && fresh.claims.auth_time <= seconds(), `auth_time ${fresh.claims.auth_time}`);
    same('max_age there', op.seen('authorization').map(line => line.params.max_age), [undefined, 600].map(age => age && String(age)));
    company.admin('upstream', 'delete', 'bare');
    await op.stop();
  });

  await row(party, 'a pushed request by the button; prompt=none with and without a sign-in; id_token_hint of somebody else', async () => {
    const [ida, ole] = [person('ida'), person('ole')];
    const op = await provider('par', company, { 'sub-of-ida': ida, 'sub-of-ole': ole });
    add(company, 'par', op.issuer, '--just-in-time');
    /** What a pushed request with the button of the upstream ends with. */
    const pushed = async (more, who) => {
      const { url, verifier } = await asking(company, more), form = new URL(url).searchParams;
      const answer = await fetch(`${company.idp}/par`, { method: 'POST', headers: { authorization: `Basic ${btoa(`${company.client.id}:${company.client.secret}`)}` }, body: form });
      const { request_uri } = await answer.json();
      must(answer.status === 201 && request_uri, `${answer.status}`);
      const back = await browse(`${company.idp}/authorize?${new URLSearchParams({ client_id: company.client.id, request_uri, upstream: 'par' })}`, BACK, who);
      const code = back.url.searchParams.get('code');
      const tokens = code && await post(company, { grant_type: 'authorization_code', code, redirect_uri: BACK, code_verifier: verifier });
      return { jar: back.jar, error: back.url.searchParams.get('error'), id_token: tokens?.id_token, claims: tokens && claims(tokens.id_token), typed: back.trail.filter(({ method }) => method === 'POST').map(({ url }) => new URL(url).origin) };
    };
    const silent = async jar => (await browse((await asking(company, { prompt: 'none' })).url, BACK, { jar })).url.searchParams;
    const first = await pushed({}, as(ida));
    same('pushed', [first.claims.preferred_username, first.typed], ['ida', [op.issuer]]);
    // Asked for in the pushed request, a new sign-in is asked for once, and not again when the browser returns.
    for (const [name, value] of [['prompt', 'login'], ['max_age', '0']]) {
      await sleep(1100);
      const again = await pushed({ [name]: value }, { ...as(ida), jar: first.jar });
      // It reads max_age=0 as prompt=login itself.
      same(name, [again.claims.sub, again.typed, op.seen('authorization').at(-1).params.prompt.split(' ').includes('login'), again.claims.auth_time > first.claims.auth_time], [first.claims.sub, [op.issuer], true, true]);
    }
    must((await silent(first.jar)).get('code'), 'prompt=none with a sign-in');
    same('prompt=none without', (await silent(undefined)).get('error'), 'login_required');
    same('prompt=none leads nowhere', op.seen('authorization').some(line => line.params.prompt === 'none'), false);
    // The application means ida; ole signs in there.
    const { url } = await asking(company, { upstream: 'par', id_token_hint: first.id_token });
    let hinted;
    try { const { url: back } = await browse(url, BACK, as(ole)); hinted = back.searchParams.get('error') ?? 'a code'; } catch (error) { hinted = error.message; }
    same('id_token_hint of ida', hinted, 'login_required');
    company.admin('upstream', 'delete', 'par');
    await op.stop();
  });

  await row(party, 'by its defaults: names and groups are at /userinfo alone, and a refresh token is given to who asks for consent', async () => {
    const { env, later } = movable(), own = await serve('upstream_check_minutes = 1', env);
    const pia = person('pia', { name: 'Pia Example', email: 'pia@pia.example', email_verified: true, groups: ['Makers'] });
    const op = await provider('pia', own, { 'sub-of-pia': pia }, { byScope: true, configuration: { conformIdTokenClaims: true, clockTolerance: 9000 } });
    add(own, 'pia', op.issuer, '--just-in-time', '--domain', 'pia.example', '--group', 'Makers=engineering', '--scopes', 'groups');
    const tokens = await signIn(own, 'pia', as(pia));
    same('ID token', [tokens.claims.preferred_username, tokens.claims.name, tokens.claims.email, tokens.claims.email_verified, tokens.claims.groups], ['pia', 'Pia Example', 'pia@pia.example', true, ['engineering']]);
    same('consent', op.seen('authorization').map(line => line.params.prompt), ['consent']);
    op.set('sub-of-pia', { disabled: true });
    later(61);
    same('switched off there', (await exchange(own, 'refresh_token', tokens.refresh_token)).error, 'invalid_grant');
    await own.stop();
    await op.stop();
  });

  await row(party, 'two upstreams: a code at the other callback, a code of the other, and the iss of the other sign nobody in; an address links nobody', async () => {
    const [one, two] = [person('una', { email: 'both@acme.example', email_verified: true }), person('duo', { email: 'both@acme.example', email_verified: true })];
    const people = { one: { 'sub-1': one }, two: { 'sub-1': two, 'sub-2': person('una') } };
    const ops = { one: await provider('one', company, people.one), two: await provider('two', company, people.two) };
    for (const name of ['one', 'two']) add(company, name, ops[name].issuer, '--just-in-time', '--domain', `${name}.example`);
    const callback = name => `${company.idp}/callback/${name}`, before = users(company);
    /** A browser that was sent to an upstream, and what it brings back. */
    const sent = async name => {
      const back = await browse((await asking(company, { upstream: name })).url, callback(name), as(name === 'one' ? one : two));
      same('its iss', back.url.searchParams.get('iss'), ops[name].issuer);
      return back;
    };
    const comes = async (at, params, jar) => {
      const url = `${at}?${new URLSearchParams(params)}`, answer = await fetch(url, { redirect: 'manual', headers: { cookie: jar.header(url) } });
      return { status: answer.status, text: await answer.text(), cookies: answer.headers.getSetCookie().filter(line => !/Max-Age=0/i.test(line)) };
    };
    const params = ({ url }) => Object.fromEntries(url.searchParams);
    for (const [what, at, changed, reason] of [
      ['the callback of the other one', 'two', {}, 'sign_in.mixed_up'],
      ['the callback, the code and the iss of the other one', 'two', { code: true, iss: true }, 'sign_in.mixed_up'],
      ['the iss of the other one', 'one', { iss: true }, 'sign_in.upstream_invalid'],
      ['the code and the iss of the other one', 'one', { code: true, iss: true }, 'sign_in.upstream_invalid'],
      ['the code of the other one', 'one', { code: true }, 'sign_in.upstream_refused'],
    ]) {
      const [begun, other] = [await sent('one'), await sent('two')], honest = params(begun), its = params(other);
      const redeemed = ops.one.seen('token').length + ops.two.seen('token').length;
      const answer = await comes(callback(at), { ...honest, ...(changed.code && { code: its.code }), ...(changed.iss && { iss: its.iss }) }, begun.jar);
      must(answer.status === 400 && answer.cookies.length === 0, `${what}: ${answer.status} ${answer.cookies}`);
      const [{ event, outcome, details, person: whose }] = trail(company, '--limit', '1');
      same(what, [event, outcome, details.reason, details.issuer, whose], ['sign_in', 'refused', reason, ops.one.issuer, '']);
      // Where the response says that it is another one's, its code goes nowhere.
      same(`${what}: requests for tokens`, ops.one.seen('token').length + ops.two.seen('token').length - redeemed, reason === 'sign_in.upstream_refused' ? 1 : 0);
      // That sign-in is over: what was changed cannot be put right.
      must((await comes(callback('one'), honest, begun.jar)).status === 400, `${what}: it was taken afterwards`);
    }
    // A response without `iss`, although this upstream announces one; and a browser that began nothing.
    const begun = await sent('one'), { iss, ...without } = params(begun);
    must((await comes(callback('one'), without, begun.jar)).status === 400, `without ${iss}`);
    same('without iss', trail(company, '--limit', '1')[0].details.reason, 'sign_in.upstream_invalid');
    const forged = await sent('one');
    must((await comes(callback('one'), params(forged), { header: () => '' })).status === 400, 'in another browser');
    same('nobody is here', [users(company), JSON.parse(company.admin('upstream', 'links', 'one')).length], [before, 0]);
    // The unchanged response of that browser is good: the changes above are why the others were not.
    must((await comes(callback('one'), params(forged), forged.jar)).status === 303, 'the honest one');

    const [una, duo] = [await signIn(company, 'one', as(one)), await signIn(company, 'two', as(two))];
    must(una.claims.sub !== duo.claims.sub && una.claims.email === duo.claims.email, 'the same address, or the same subject at two upstreams, made them one');
    same('two people', [una.claims.preferred_username, duo.claims.preferred_username], ['una', 'duo']);
    // The user name is somebody's already.
    let refused = '';
    try { await signIn(company, 'two', as(person('una'))); } catch (error) { refused = error.message; }
    must(refused.includes('HTTP 403'), refused);
    same('name taken', trail(company, '--limit', '1')[0].details.reason, 'sign_in.name_taken');
    // An administrator links them, and then they are one.
    company.admin('upstream', 'link', 'two', '--user', 'una', '--subject', 'sub-2');
    same('linked', (await signIn(company, 'two', as(person('una')))).claims.sub, una.claims.sub);
    company.admin('upstream', 'unlink', 'two', '--subject', 'sub-2');
    same('its sign-ins end', (await refresh(company, una.refresh_token)).error, 'invalid_grant');
    for (const name of ['one', 'two']) { company.admin('upstream', 'delete', name); await ops[name].stop(); }
  });

  for (const method of ['client_secret_basic', 'client_secret_post']) await row(party, `${method} with a secret of special characters`, async () => {
    // All that it may have: printable ASCII (RFC 6749, appendix A.2).
    const name = method.split('_').at(-1), secret = `a+b %c/d:e=f&g"h~!#$'()*,;<>?@[\\]^_\`{|} and more`, file = join(scratch, `${name}.secret`);
    const pam = person(`pam-${name}`);
    const op = await provider(name, company, { 'sub-of-pam': pam }, { client: { token_endpoint_auth_method: method, client_secret: secret, token_endpoint_auth_signing_alg: undefined, jwks_uri: undefined } });
    writeFileSync(file, `${secret}\n`, { mode: 0o600 });
    const made = add(company, name, op.issuer, '--just-in-time', '--proof', method, '--client-secret-file', file);
    must(made.proof === method && !JSON.stringify(made).includes('a+b'), JSON.stringify(made));
    const tokens = await signIn(company, name, as(pam));
    same('who', tokens.claims.preferred_username, `pam-${name}`);
    const basic = name === 'basic', [asked] = op.seen('token');
    same('the request', [asked.status, asked.authorization ?? '', asked.secret_in_form, asked.params.client_id ?? ''], [200, basic ? 'Basic' : '', !basic, basic ? '' : 'front']);
    // With another secret it does not work.
    writeFileSync(file, secret.replace('+', ' '), { mode: 0o600 });
    company.admin('upstream', 'change', name, '--proof', method, '--client-secret-file', file);
    let refused = '';
    try { await signIn(company, name, as(pam)); } catch (error) { refused = error.message; }
    must(refused.includes('HTTP 400'), refused);
    const [last] = trail(company, '--limit', '1');
    same('on record', [last.details.reason, last.details.detail], ['sign_in.upstream_refused', 'invalid_client']);
    company.admin('upstream', 'delete', name);
    await op.stop();
  });

  await row('passavant admin', 'upstream check: each leg, and who has to change what where one is bad', async () => {
    const own = await serve(), secret = 'a secret of this client and nobody else', file = join(scratch, 'check.secret');
    const put = text => writeFileSync(file, text, { mode: 0o600 });
    const bySecret = { token_endpoint_auth_method: 'client_secret_basic', client_secret: secret, token_endpoint_auth_signing_alg: undefined, jwks_uri: undefined };
    const legs = name => {
      const done = spawnSync(E.PASSAVANT, ['admin', '--config', own.config, '--json', 'upstream', 'check', name], { encoding: 'utf8' });
      const legs = JSON.parse(done.stdout), bad = legs.filter(leg => !leg.works);
      must(done.status === (bad.length ? 1 : 0) && bad.every(leg => leg.hint), `${done.status}: ${done.stdout}${done.stderr}`);
      return { all: legs.map(leg => leg.leg), bad: Object.fromEntries(bad.map(leg => [leg.leg, `${leg.found} => ${leg.hint}`])), text: done.stdout };
    };
    /** Exactly these legs are bad, and say this. */
    const bad = (what, found, wanted) => {
      same(what, Object.keys(found.bad), Object.keys(wanted));
      for (const [leg, texts] of Object.entries(wanted)) for (const text of texts) must(found.bad[leg].includes(text), `${what}: ${leg} does not say "${text}": ${found.bad[leg]}`);
    };
    // Right, by key and by secret.
    const ops = { key: await provider('key', own, {}), secret: await provider('secret', own, {}, { client: bySecret }) };
    put(secret);
    add(own, 'key', ops.key.issuer);
    add(own, 'secret', ops.secret.issuer, '--proof', 'client_secret_basic', '--client-secret-file', file);
    for (const name of ['key', 'secret']) {
      const right = legs(name);
      bad(name, right, {});
      same(`${name}: legs`, right.all.filter(leg => leg !== 'groups'), ['discovery', 'algorithm of ID tokens', 'keys', 'redirect URI', 'client authentication']);
    }
    // Nobody was signed in by it, and no code was used up.
    same('sessions', JSON.parse(own.admin('session', 'list')), []);
    // A wrong secret, and a client that is not known there.
    put('another secret');
    own.admin('upstream', 'change', 'secret', '--proof', 'client_secret_basic', '--client-secret-file', file);
    bad('a wrong secret', legs('secret'), { 'client authentication': ['invalid_client', 'the administrator there has to compare client id, secret'] });
    own.admin('upstream', 'change', 'key', '--client-id', 'nobody');
    bad('a client id that is not known', legs('key'), { 'redirect URI': ['HTTP 400', `${own.idp}/callback/key`], 'client authentication': ['invalid_client', `${own.idp}/jwks`] });
    own.admin('upstream', 'change', 'key', '--client-id', 'front', '--id-token-signing-alg', 'ES256');
    bad('another algorithm', legs('key'), { 'algorithm of ID tokens': ['ES256 is not among those it announces', '--id-token-signing-alg'], keys: ['id_token_signing_alg'] });
    // A redirect URI that is registered with another name in it.
    const elsewhere = await provider('elsewhere', own, {});
    add(own, 'here', elsewhere.issuer);
    bad('a redirect URI that is not registered', legs('here'), { 'redirect URI': ['HTTP 400', `the administrator there has to register the redirect URI ${own.idp}/callback/here, byte for byte`] });
    // The issuer in another spelling, and one where nothing is.
    const spelled = elsewhere.issuer.replace('localhost', '127.0.0.1');
    add(own, 'spelled', spelled);
    bad('a wrong issuer', legs('spelled'), { discovery: [elsewhere.issuer, 'add it again with the issuer that its document names'] });
    add(own, 'nothing', `http://localhost:${await freePort()}`);
    bad('no issuer', legs('nothing'), { discovery: ['check the issuer', 'whoever runs the network'] });
    // Stopped: at once, whatever was found a moment ago.
    await elsewhere.stop();
    const stopped = legs('here');
    must(Object.keys(stopped.bad).length && Object.values(stopped.bad).some(text => text.includes('whoever runs the network')), stopped.text);
    await own.stop();
    for (const op of Object.values(ops)) await op.stop();
    return `stopped: ${Object.keys(stopped.bad).join(', ')}`;
  });

  // ---------- whether they are still there ----------
  await row(party, 'still there? Asked again after upstream_check_minutes: taken away or switched off there, the sign-in ends here; down, it goes on for a while', async () => {
    const { env, later } = movable(), away = await serve('upstream_check_minutes = 1\nupstream_grace_minutes = 10', env);
    const everybody = Object.fromEntries(['kim', 'lou', 'mia'].map(name => [`sub-of-${name}`, person(name, { groups: ['Makers'] })]));
    // It takes client assertions of a clock that is ahead, and its ID tokens are good for longer than the row's hours. A refresh
    // token that is used twice ends everything there.
    const op = await provider('corp', away, everybody, { configuration: { rotateRefreshToken: true, clockTolerance: 9000, ttl: { IdToken: 86_400, AccessToken: 3600, AuthorizationCode: 60, Grant: 86_400, RefreshToken: 86_400, Session: 86_400, Interaction: 600 } } });
    add(away, 'corp', op.issuer, '--just-in-time', '--group', 'Makers=engineering', '--scopes', 'groups');
    const tokens = {};
    for (const name of ['kim', 'lou', 'mia']) tokens[name] = await signIn(away, 'corp', as(everybody[`sub-of-${name}`]));
    const asked = () => op.seen('token').filter(line => line.params.grant_type === 'refresh_token').length;
    const get = async (name, kind = 'refresh_token') => { const { status, error } = await exchange(away, kind, tokens[name][kind]); return [status, error]; };
    const good = [200, undefined], gone = [400, 'invalid_grant'], wait = [503, 'temporarily_unavailable'];
    const checks = name => trail(away, '--event', 'upstream_check', '--person', name).map(({ outcome, details }) => [outcome, details.reason, details.issuer, details.detail]);

    same('within the minute', [await get('kim'), await get('lou'), await get('mia'), asked()], [good, good, good, 0]);
    await op.revoke('sub-of-kim');
    same('nobody knows it yet', [await get('kim'), asked()], [good, 0]);
    later(61);
    same('revoked there', [await get('kim', 'id_token'), asked()], [gone, 1]);
    same('why', checks('kim'), [['refused', 'upstream_check.ended', op.issuer, 'invalid_grant']]);
    same('its refresh token', [(await refresh(away, tokens.kim.refresh_token)).error, await get('kim'), asked()], ['invalid_grant', gone, 1]);
    same('the others', [await get('lou', 'id_token'), await get('lou'), await get('mia'), asked()], [good, good, good, 3]);
    // Whom the upstream does not know any more, at a refresh.
    op.set('sub-of-lou', { disabled: true });
    tokens.lou = await refresh(away, tokens.lou.refresh_token);
    same('within the next minute', [tokens.lou.status, asked()], [200, 3]);
    later(2 * 61);
    same('switched off there', [(await refresh(away, tokens.lou.refresh_token)).error, checks('lou')], ['invalid_grant', [['refused', 'upstream_check.ended', op.issuer, 'invalid_grant']]]);
    // What the upstream says about her at that time is written down.
    op.set('sub-of-mia', { claims: { preferred_username: 'mia', name: 'Mia Married', groups: [] } });
    const [refused, error] = await get('mia');
    same('out of the group', [refused, error], [400, 'access_denied']);
    same('her new name', JSON.parse(away.admin('user', 'show', 'mia')).display_name, 'Mia Married');
    op.set('sub-of-mia', { claims: { preferred_username: 'mia', groups: ['Makers'] } });
    later(3 * 61);
    const once = asked(), all = await Promise.all(Array.from({ length: 10 }, () => get('mia')));
    same('in it again, ten at once', [all, asked() - once], [all.map(() => good), 1]);

    // It is down for longer than a check, and for shorter than the grace.
    await op.stop();
    later(4 * 61);
    same('down', [await get('mia'), await get('mia')], [good, good]);
    later(3 * 61 + 600);
    same('down for ten minutes', await get('mia'), good);
    await op.again();
    const before = asked();
    later(3 * 61 + 631);
    same('up again', [await get('mia'), asked() - before], [good, 1]);
    await op.stop();
    later(7200);
    same('down for longer', [await get('mia'), trail(away, '--limit', '1')[0].details.reason], [wait, 'upstream_check.unreachable']);
    await op.again();
    later(7200 + 31);
    same('nobody was sent away for that', [await get('mia'), checks('mia')], [good, []]);
    same('who is signed in', JSON.parse(away.admin('session', 'list')).length, 1);
    // An administrator switches it off.
    away.admin('upstream', 'disable', 'corp');
    same('off', [await get('mia'), JSON.parse(away.admin('session', 'list'))], [gone, []]);
    await away.stop();
    await op.stop();
  });

  // ---------- sign-outs, there and here ----------
  /** What has ended of a sign-in: its ID token, its refresh token at the exchange and at a refresh, and its browser's session. */
  async function left(company, { id_token, refresh_token, jar }) {
    const exchanges = await Promise.all([['id_token', id_token], ['refresh_token', refresh_token]].map(async ([kind, token]) => { const { status, error } = await exchange(company, kind, token); return error ?? status; }));
    const silent = (await browse((await asking(company, { prompt: 'none' })).url, BACK, { jar })).url.searchParams;
    return [...exchanges, silent.get('error') ?? 'a code'];
  }
  const live = [200, 200, 'a code'], ended = ['invalid_grant', 'invalid_grant', 'login_required'];
  const outs = (company, ...more) => trail(company, '--event', 'sign_out', ...more);
  /** Posts a logout token to the upstream's path. */
  const tell = async (company, name, logout_token) => {
    const answer = await fetch(`${company.idp}/backchannel_logout/${name}`, { method: 'POST', body: new URLSearchParams({ logout_token }) });
    same('no-store', answer.headers.get('cache-control'), 'no-store');
    return answer.status;
  };
  const logsOut = (company, name, sid) => ({
    client: { backchannel_logout_uri: `${company.idp}/backchannel_logout/${name}`, backchannel_logout_session_required: sid },
    configuration: { features: { devInteractions: { enabled: false }, backchannelLogout: { enabled: true } } },
  });

  await row(party, 'back-channel logout: signed out there, that session is gone here at once, or without sid all of that person; a logout token that is replayed, or sent elsewhere, ends nothing', async () => {
    const [one, two] = ['una', 'uwe'].map(name => person(`${name}.out`, { groups: ['Makers'] })), people = () => ({ 'sub-of-una': one, 'sub-of-uwe': two });
    const ops = { session: await provider('session', company, people(), logsOut(company, 'session', true)), person: await provider('person', company, people(), logsOut(company, 'person', false)) };
    const mapped = ['--just-in-time', '--group', 'Makers=engineering', '--scopes', 'groups'];
    same('what to register', add(company, 'session', ops.session.issuer, ...mapped).backchannel_logout_uri, `${company.idp}/backchannel_logout/session`);
    add(company, 'person', ops.person.issuer, ...mapped);
    const sign = (name, who, jar) => signIn(company, name, { ...as(who), jar });
    /** Signs out at the provider in a browser; the logout token that this sends. */
    const signOut = async (name, { jar }) => {
      const before = ops[name].seen('sent').length, done = await browse(`${ops[name].issuer}/session/end`, BACK, { jar, submit: 'logout=yes' });
      must(done.html?.includes('Sign-out Success'), done.html);
      const sent = ops[name].seen('sent').slice(before);
      same('sent', sent.map(({ url, status }) => [url, status]), [[`${company.idp}/backchannel_logout/${name}`, 200]]);
      return sent[0].logout_token;
    };
    const what = ({ outcome, person, details }) => [outcome, person, details.issuer, details.subject, details.count];

    // With sid: the session of that browser, and no other.
    let [first, second, other] = [await sign('session', one), await sign('session', one), await sign('session', two)];
    same('before', [await left(company, first), await left(company, second)], [live, live]);
    const bySid = await signOut('session', first);
    must(claims(bySid).sid && claims(bySid).sub === 'sub-of-una' && header(bySid).typ === 'logout+jwt', JSON.stringify([header(bySid), claims(bySid)]));
    same('one browser signed out there', [await left(company, first), await left(company, second), await left(company, other)], [ended, live, live]);
    same('its refresh token', (await refresh(company, first.refresh_token)).error, 'invalid_grant');
    same('on record', outs(company).map(what), [['granted', first.claims.sub, ops.session.issuer, 'sub-of-una', '1']]);
    // Nothing of it was noticed by asking there.
    same('asked', ops.session.seen('token').filter(line => line.params.grant_type === 'refresh_token').length, 0);

    // Without sid: all that the person has by way of that upstream.
    company.admin('upstream', 'link', 'person', '--user', 'una.out', '--subject', 'sub-of-una');
    company.admin('upstream', 'link', 'person', '--user', 'uwe.out', '--subject', 'sub-of-uwe');
    const [mine, mineToo, his] = [await sign('person', one), await sign('person', one), await sign('person', two)];
    same('one person', [mine.claims.sub, his.claims.sub], [second.claims.sub, other.claims.sub]);
    const bySub = await signOut('person', mine);
    same('no sid', [claims(bySub).sub, 'sid' in claims(bySub)], ['sub-of-una', false]);
    same('all of that person', [await left(company, mine), await left(company, mineToo), await left(company, his)], [ended, ended, live]);
    same('by way of the other upstream', await left(company, second), live);
    same('on record, without sid', what(outs(company, '--limit', '1')[0]), ['granted', mine.claims.sub, ops.person.issuer, 'sub-of-una', '2']);

    // Replayed, after a new sign-in in the same browser: it has served.
    const again = await sign('person', one, mine.jar), rows = outs(company).length;
    same('replayed', [await tell(company, 'person', bySub), await tell(company, 'session', bySid), outs(company).length - rows], [200, 200, 0]);
    same('after that', [await left(company, again), await left(company, second)], [live, live]);
    // One that ended nothing so far, at the path of the other upstream: it is of another issuer, signed by another key.
    const unused = await signOut('session', other);
    same('his session', [await left(company, other), await left(company, his)], [ended, live]);
    for (const [name, token] of [['person', unused], ['session', bySub], ['nobody', bySub]]) same(`sent to ${name}`, await tell(company, name, token), 400);
    same('refused', outs(company, '--outcome', 'refused').map(({ details }) => [details.issuer, details.reason]).sort(), ['session', 'person'].map(name => [ops[name].issuer, 'sign_out.logout_token']).sort());
    same('no logout token', [await tell(company, 'session', 'x'), await tell(company, 'session', '')], [400, 400]);
    same('nobody else', [await left(company, again), await left(company, his), await left(company, second)], [live, live, live]);
    // Switched off, it is not heard.
    company.admin('upstream', 'disable', 'session');
    same('switched off', await tell(company, 'session', unused), 400);
    for (const name of ['session', 'person']) { company.admin('upstream', 'delete', name); await ops[name].stop(); }
  });

  await row('Chromium', 'signed out here, a button leads to the sign-out of the upstream; without it the next sign-in asks for no password; no button on the way back to an application', async () => {
    const program = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync);
    must(program, 'chromium is not installed');
    const own = await serve(), max = person('max.out');
    const op = await provider('out', own, { 'sub-of-max': max });
    add(own, 'out', op.issuer, '--just-in-time', '--display-name', 'Out & Co');
    own.admin('client', 'change', 'agent', '--post-logout-redirect-uri', 'http://127.0.0.1:8765/bye');
    const { chromium } = await import('playwright-core');
    const browser = await chromium.launch({ executablePath: program, args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-sync', '--no-first-run'] });
    const application = createServer((_, answer) => answer.end('back at the application')).listen(0, '127.0.0.1');
    await new Promise(r => application.once('listening', r));
    const callback = `http://127.0.0.1:${application.address().port}/callback`;
    try {
      const page = await (await browser.newContext({ viewport: { width: 320, height: 700 }, colorScheme: 'dark' })).newPage(), problems = [];
      page.on('console', message => { if (['error', 'warning'].includes(message.type()) && page.url().startsWith(own.idp)) problems.push(message.text()); });
      // Its pages name a font that is on the web.
      await page.route(url => !['localhost', '127.0.0.1'].includes(url.hostname), route => route.abort());
      /** Signs in by way of the upstream; whether a password was typed there. */
      const sign = async () => {
        await page.goto((await asking(own, { redirect_uri: callback, upstream: 'out' })).url);
        const typed = page.url().startsWith(`${op.issuer}/interaction/`);
        if (typed) {
          await page.fill('[name=username]', max.username);
          await page.fill('[name=password]', max.password);
          await page.keyboard.press('Enter');
        }
        await page.waitForURL(`${callback}**`);
        return typed;
      };
      const signOut = async () => {
        await page.goto(`${own.idp}/logout`);
        await page.click('button');
        await page.waitForSelector('text=You are signed out');
      };
      same('a password', await sign(), true);
      await signOut();
      const text = await page.textContent('body');
      must(text.includes('You signed in with Out & Co, and are still signed in there'), text);
      same('none, as the page says', await sign(), false);
      await signOut();
      await page.screenshot({ path: join(shots, 'sign-out-upstream.png') });
      must(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'it scrolls sideways');
      same('where the button leads', await page.getAttribute('a.button', 'href'), `${op.issuer}/session/end?client_id=front`);
      await page.click('text=Sign out there, too');
      await page.click('text=Yes, sign me out');
      await page.waitForSelector('text=Sign-out Success');
      same('a password again', await sign(), true);
      // On the way back to an application there is no page of ours.
      const bye = 'http://127.0.0.1:8765/bye', went = page.waitForRequest(request => request.url().startsWith(bye));
      await page.goto(`${own.idp}/logout?${new URLSearchParams({ client_id: 'agent', post_logout_redirect_uri: bye, state: 's' })}`);
      await page.click('button');
      same('to the application', (await went).url(), `${bye}?state=s`);
      same('the console', problems.filter(text => !text.includes('ERR_CONNECTION_REFUSED')), []);
    } finally {
      await browser.close();
      application.close();
    }
    // A provider that names no sign-out page is not linked to.
    const silent = await provider('silent', own, { 'sub-of-mo': person('mo.out') }, { configuration: { features: { devInteractions: { enabled: false }, rpInitiatedLogout: { enabled: false } } } });
    add(own, 'silent', silent.issuer, '--just-in-time');
    const { jar } = await signIn(own, 'silent', as(person('mo.out')));
    const { html } = await browse(`${own.idp}/logout`, BACK, { jar });
    must(html.includes('You are signed out') && !html.includes('class="button"'), html);
    await own.stop();
    for (const provider of [op, silent]) await provider.stop();
  });

  // ---------- a second Passavant ----------
  await row('passavant serve', 'a second one as upstream, by key: one sign-in at both, its group and class; max_age and prompt=login ask there again; disabled there, gone here', async () => {
    const { env, later } = movable(), behind = await serve('', env), front = await serve('upstream_check_minutes = 1', env), password = 'a long passphrase of nia';
    run(E.PASSAVANT, ['admin', '--config', behind.config, '--json', 'user', 'add', 'nia', '--email', 'nia@acme.example', '--email-verified', '--given-name', 'Nia', '--group', 'engineering'], {}, `${password}\n`);
    behind.admin('client', 'add', 'Front', '--id', 'front', '--jwks-uri', `${front.idp}/jwks`, '--algorithm', 'ES256', '--redirect-uri', `${front.idp}/callback/behind`);
    add(front, 'behind', behind.idp, '--just-in-time', '--id-token-signing-alg', 'ES256', '--scopes', 'groups', '--group', 'engineering=engineering', '--domain', 'acme.example');
    const check = spawnSync(E.PASSAVANT, ['admin', '--config', front.config, 'upstream', 'check', 'behind'], { encoding: 'utf8' });
    must(check.status === 0, check.stdout + check.stderr);
    const nia = { user: 'nia', pass: password }, tokens = await signIn(front, 'behind', nia);
    const posts = trail => trail.filter(({ method }) => method === 'POST').map(({ url }) => new URL(url).origin);
    same('where a password was typed', posts(tokens.trail), [behind.idp]);
    same('ID token', [tokens.claims.preferred_username, tokens.claims.groups, tokens.claims.email, tokens.claims.email_verified, tokens.claims.given_name, tokens.claims.amr], ['nia', ['engineering'], 'nia@acme.example', true, 'Nia', ['pwd']]);
    const { status, access_token } = await exchange(front, 'id_token', tokens.id_token);
    same('ID-JAG', [status, claims(access_token).sub, await redeem(front, access_token)], [200, tokens.claims.sub, [200, 'canvas.read']]);
    // Signed in at both: nothing is typed, and nothing is asked there.
    const again = await signIn(front, 'behind', { ...nia, jar: tokens.jar });
    same('again', [posts(again.trail), again.claims.auth_time], [[], tokens.claims.auth_time]);
    // A class of ours is not taken from another one, unless an administrator says what it means here.
    same('its class', ['acr' in tokens.claims, claims((await signIn(behind, undefined, nia)).id_token).acr], [false, 'urn:passavant:acr:password']);
    front.admin('upstream', 'change', 'behind', '--acr', 'urn:passavant:acr:password=urn:acme:behind');
    await sleep(1100);
    const forwarded = trail => new URL(trail.find(({ url }) => url.startsWith(`${behind.idp}/authorize?`))?.url ?? 'http://nowhere').searchParams;
    const old = await signIn(front, 'behind', { ...nia, jar: tokens.jar }, { max_age: '0' });
    same('max_age', [forwarded(old.trail).get('max_age'), posts(old.trail), old.claims.auth_time > tokens.claims.auth_time, old.claims.acr], ['0', [behind.idp], true, 'urn:acme:behind']);
    await sleep(1100);
    const fresh = await signIn(front, 'behind', { ...nia, jar: old.jar }, { prompt: 'login' });
    same('prompt=login', [forwarded(fresh.trail).get('prompt'), posts(fresh.trail), fresh.claims.auth_time > old.claims.auth_time], ['login consent', [behind.idp], true]);
    same('one person', new Set([tokens, again, old, fresh].map(({ claims }) => claims.sub)).size, 1);
    later(61);
    same('a minute later', (await exchange(front, 'refresh_token', fresh.refresh_token)).status, 200);
    behind.admin('user', 'disable', 'nia');
    same('disabled there', (await exchange(front, 'refresh_token', fresh.refresh_token)).status, 200);
    later(2 * 61);
    same('seen here', [(await exchange(front, 'refresh_token', fresh.refresh_token)).error, (await refresh(front, fresh.refresh_token)).error], ['invalid_grant', 'invalid_grant']);
    same('why', trail(front, '--event', 'upstream_check').map(({ outcome, details }) => [outcome, details.reason, details.issuer, details.detail]), [['refused', 'upstream_check.ended', behind.idp, 'invalid_grant']]);
    let refused = '';
    try { await signIn(front, 'behind', nia); } catch (error) { refused = error.message; }
    must(refused.includes('login refused'), refused);
    await front.stop();
    await behind.stop();
  });

  await row(`jose ${version('jose')}`, 'signing keys of IdP and authorization server turn while people exchange: a verifier that keeps keys for as long as it may refuses nothing; what a removed key signed is believed nowhere', async () => {
    const { env, later } = movable(), own = await serve('grants_per_minute = 100000', env), password = 'a long passphrase of erin', { ras } = own.canvas;
    run(E.PASSAVANT, ['admin', '--config', own.config, '--json', 'user', 'add', 'erin', '--group', 'engineering'], {}, `${password}\n`);
    let ahead = 0;
    const now = () => seconds() + ahead, move = by => later(ahead += by);
    /** Keeps what it fetched until the answer's max-age is over, and never looks sooner. Returns the key's id. */
    const verifier = issuer => {
      let set, until = 0;
      return async token => {
        if (now() >= until) {
          const answer = await fetch(`${issuer}/jwks`);
          until = now() + Number(/max-age=(\d+)/.exec(answer.headers.get('cache-control'))[1]);
          set = createLocalJWKSet(await answer.json());
        }
        await jwtVerify(token, set, { issuer, currentDate: new Date(now() * 1000) });
        return header(token).kid;
      };
    };
    const atIdp = verifier(own.idp), atRas = verifier(ras), headers = { authorization: `Basic ${btoa(`acme-canvas:${own.secret('canvas')}`)}` };
    const askRas = async (path, form) => { const answer = await fetch(`${ras}${path}`, { method: 'POST', headers, body: new URLSearchParams(form) }); return { status: answer.status, ...await answer.json() }; };
    const kids = { idp: {}, ras: {} }, note = (where, kid) => { kids[where][kid] = (kids[where][kid] ?? 0) + 1; };
    const first = await signIn(own, undefined, { user: 'erin', pass: password });
    /** One walk: an ID-JAG, an access token for it, and what three verifiers say of them. */
    const walk = async () => {
      const grant = await exchange(own, 'refresh_token', first.refresh_token);
      must(grant.status === 200, `exchange: ${JSON.stringify(grant)}`);
      note('idp', await atIdp(grant.access_token));
      const token = await askRas('/token', { grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion: grant.access_token });
      must(token.status === 200, `redemption: ${JSON.stringify(token)}`);
      note('ras', await atRas(token.access_token));
      const { active } = await askRas('/introspect', { token: token.access_token });
      must(active, 'introspection');
      return token.access_token;
    };
    let busy = true, walks = 0;
    const worker = async () => { while (busy) { await walk(); walks++; await sleep(150); } };
    const workers = Promise.all(Array.from({ length: 4 }, worker));
    try {
      for (const where of [[], ['--ras', 'canvas']]) own.admin(...where, 'key', 'rotate');
      for (let minute = 0; minute < 12; minute++) { await Promise.race([sleep(400), workers]); move(60); }
      await Promise.race([sleep(1000), workers]);
    } finally { busy = false; }
    await workers;
    same('keys that signed', [Object.keys(kids.idp).length, Object.keys(kids.ras).length], [2, 2]);
    // In other hands: what a key signed opens nothing any more.
    const fresh = await signIn(own, undefined, { user: 'erin', pass: password }), token = await walk();
    const opens = async () => { const { status, error } = await exchange(own, 'id_token', fresh.id_token); return [error ?? status, (await askRas('/introspect', { token })).active]; };
    for (const where of [[], ['--ras', 'canvas']]) own.admin(...where, 'key', 'rotate', '--now');
    same('another key signs', await opens(), [200, true]);
    own.admin('key', 'remove', header(fresh.id_token).kid);
    own.admin('--ras', 'canvas', 'key', 'remove', header(token).kid);
    same('at once', await opens(), ['invalid_grant', false]);
    move(300);
    const believed = async (verify, token) => { try { await verify(token); return 'believed'; } catch (error) { return error.code; } };
    same('elsewhere after five minutes', [await believed(atIdp, fresh.id_token), await believed(atRas, token)], ['ERR_JWKS_NO_MATCHING_KEY', 'ERR_JWKS_NO_MATCHING_KEY']);
    await walk();
    await own.stop();
    return `${walks} walks: ${Object.values(kids.idp).join(' and ')} by the IdP's keys`;
  });

  await row('passavant serve', 'switched off at the IdP, open streams and tokens end within a second at a gateway and an authorization server in processes of their own; whichever of the three is killed in between, they end', async () => {
    const own = await serve('grants_per_minute = 100000'), vendor = await serve(), { ras } = vendor.canvas, port = await freePort(), mcp = `http://127.0.0.1:${port}/mcp`, password = 'a long passphrase of erin', scopes = ['--scopes', 'canvas.read'];
    vendor.admin('--ras', 'canvas', 'resource', 'add', mcp, ...scopes);
    vendor.admin('--ras', 'canvas', 'trust', 'add', own.idp, '--just-in-time');
    own.admin('server', 'add', ras);
    own.admin('resource', 'add', mcp, '--server', ras, ...scopes);
    own.admin('connection', 'add', 'engineering-vendor', '--client', 'agent', '--audience', ras, '--ras-client-id', 'acme-canvas', '--resource', mcp, ...scopes, '--group', 'engineering');
    run(E.PASSAVANT, ['admin', '--config', own.config, '--json', 'user', 'add', 'erin', '--group', 'engineering'], {}, `${password}\n`);
    // The vendor's MCP server, whose streams go on and on, and the gateway before it.
    const upstream = createServer((request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const event = () => response.write('data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}\n\n');
      const timer = setInterval(event, 10);
      response.on('close', () => clearInterval(timer));
    }).listen(0, '127.0.0.1');
    await new Promise(r => upstream.once('listening', r));
    const gateway = join(vendor.config, '..', 'gateway');
    run(E.PASSAVANT, ['init', gateway]);
    vendor.admin('--ras', 'canvas', 'client', 'add', 'Gateway', '--id', 'gateway', '--resource', mcp, '--secret-out', join(gateway, 'ras.secret'));
    writeFileSync(join(gateway, 'passavant.toml'), `
[keys]
file = "passavant.key"
[[gateway]]
listen = "127.0.0.1:${port}"
folder = "calls"
[[gateway.route]]
resource = "${mcp}"
upstream = "http://127.0.0.1:${upstream.address().port}/mcp"
authorization_server = "${ras}"
introspection = { client_id = "gateway", secret_file = "ras.secret" }
[[gateway.route.rule]]
tools = ["watch"]
`);
    const guard = () => start('the gateway of a vendor', E.PASSAVANT, ['serve', '--config', join(gateway, 'passavant.toml')], port);
    let guarding = await guard();
    const call = token => fetch(mcp, { method: 'POST', headers: { authorization: `Bearer ${token}`, accept: 'application/json, text/event-stream', 'content-type': 'application/json', 'mcp-protocol-version': '2025-11-25' }, body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'watch', arguments: {} } }) });
    /** An open stream: when its last byte came. */
    const watch = async token => {
      const answer = await call(token), reader = answer.body.getReader();
      must(answer.status === 200, `HTTP ${answer.status}`);
      await reader.read();
      let last = performance.now();
      const read = async () => { try { for (;;) { const { done } = await reader.read(); if (done) return last; last = performance.now(); } } catch { return last; } };
      return read();
    };
    const headers = { authorization: `Basic ${btoa(`acme-canvas:${vendor.secret('canvas')}`)}` };
    const ask = async (path, form) => (await fetch(`${ras}${path}`, { method: 'POST', headers, body: new URLSearchParams(form) })).json();
    // Nothing is known of it while nobody answers.
    const active = async token => { try { return (await ask('/introspect', { token })).active !== false; } catch { return true; } };
    const held = async () => {
      const { refresh_token } = await signIn(own, undefined, { user: 'erin', pass: password });
      const grant = await exchange(own, 'refresh_token', refresh_token, { audience: ras, resource: mcp });
      const { access_token } = await ask('/token', { grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion: grant.access_token });
      must(access_token && await active(access_token), JSON.stringify(grant));
      return access_token;
    };
    const ended = async (token, most) => {
      const began = performance.now();
      while (await active(token)) { must(performance.now() - began < most, `alive after ${most} ms`); await sleep(5); }
      return performance.now() - began;
    };
    // What is issued in the second of a cut-off is of afterwards.
    const enable = () => own.admin('user', 'enable', 'erin');
    const took = [], streams = [], [rounds, kills] = E.KEYCLOAK ? [12, Number(process.env.CUT_OFF_KILLS ?? 8)] : [5, 4];
    for (let i = 0; i < rounds; i++) {
      const token = await held(), stream = watch(token);
      await sleep(100);
      const began = performance.now();
      own.admin('user', 'disable', 'erin');
      await ended(token, 1000);
      took.push(Math.round(performance.now() - began));
      streams.push(Math.round(await stream - began));
      must(streams.at(-1) < 1000, `a stream went on for ${streams.at(-1)} ms`);
      same('a call afterwards', (await call(token)).status, 401);
      enable();
    }
    for (let i = 0; i < kills; i++) {
      const token = await held(), stream = watch(token), [idp, authorizationServer, gatekeeper] = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]][i % 4];
      await sleep(50);
      if (authorizationServer && !idp) await vendor.kill();
      own.admin('user', 'disable', 'erin');
      await sleep(i * 20);
      if (gatekeeper) await guarding.kill();
      if (idp) await own.kill();
      if (idp && authorizationServer) await vendor.kill();
      if (authorizationServer) await vendor.again();
      if (idp) await own.again();
      if (gatekeeper) guarding = await guard();
      // An attempt that was under way is made again when its claim has ended.
      await ended(token, 40_000);
      await stream;
      same('a call afterwards', (await call(token)).status, 401);
      enable();
    }
    for (const server of [own, vendor, guarding]) await server.stop();
    upstream.close();
    upstream.closeAllConnections();
    for (const list of [took, streams]) list.sort((one, other) => one - other);
    return `with the command itself: half of the tokens within ${took[took.length >> 1]} ms, all within ${took.at(-1)} ms; streams ${streams[streams.length >> 1]} and ${streams.at(-1)} ms; ${kills} kills`;
  });

  // ---------- those who listen ----------
  await row(`jose ${version('jose')}`, 'verifies shared signals that our IdP posts and that are fetched; whether the listener or the IdP is killed in between, each event comes, in its order, with one id', async () => {
    const own = await serve(), issuer = own.idp, events = [], at = await freePort();
    for (const name of ['erin', 'max']) run(E.PASSAVANT, ['admin', '--config', own.config, '--json', 'user', 'add', name, '--group', 'engineering'], {}, 'a long passphrase of somebody\n');
    const there = await (await fetch(`${issuer}/.well-known/ssf-configuration`)).json(), keys = createRemoteJWKSet(new URL(there.jwks_uri), { cooldownDuration: 0 });
    const open = async (token, audience) => {
      const { payload, protectedHeader } = await jwtVerify(token, keys, { issuer, audience, typ: 'secevent+jwt', algorithms: ['RS256'] });
      must(payload.exp === undefined && payload.sub === undefined && Object.keys(payload.events).length === 1, JSON.stringify([protectedHeader, payload]));
      return payload;
    };
    const word = payload => Object.keys(payload.events)[0].split('/').at(-1);
    /** A listener; it takes an event once it is written down. */
    const listen = () => new Promise(done => {
      const server = createServer(async (request, response) => {
        const chunks = [];
        for await (const chunk of request) chunks.push(chunk);
        try {
          must(request.headers.authorization === 'Bearer of the listener' && request.headers['content-type'] === 'application/secevent+jwt', JSON.stringify(request.headers));
          events.push(await open(Buffer.concat(chunks).toString(), 'soc'));
          response.writeHead(202).end();
        } catch (error) { events.push({ error: String(error) }); response.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify({ err: 'invalid_request', description: String(error) })); }
      }).listen(at, '127.0.0.1', () => done(server));
    });
    const receiver = async (id, delivery) => {
      const file = join(own.config, '..', `${id}.secret`);
      own.admin('client', 'add', id, '--id', id, '--signals', 'everyone', '--secret-out', file);
      const token = async () => {
        const answer = await fetch(`${issuer}/token`, { method: 'POST', headers: { authorization: `Basic ${btoa(`${id}:${readFileSync(file, 'utf8').trim()}`)}` }, body: new URLSearchParams({ grant_type: 'client_credentials', scope: 'ssf.manage' }) });
        return (await answer.json()).access_token;
      };
      const call = async (url, body) => fetch(url, { method: 'POST', headers: { authorization: `Bearer ${await token()}`, 'content-type': 'application/json' }, body: JSON.stringify(body) });
      const made = await call(there.configuration_endpoint, { delivery });
      same(`stream of ${id}`, made.status, 201);
      return { call, stream: await made.json() };
    };
    const soc = await receiver('soc', { method: 'urn:ietf:rfc:8935', endpoint_url: `http://127.0.0.1:${at}/`, authorization_header: 'Bearer of the listener' });
    const archive = await receiver('archive', { method: 'urn:ietf:rfc:8936' });
    let listener = await listen();
    const close = async () => { listener.closeAllConnections(); await new Promise(done => listener.close(done)); };
    const wanted = [];
    const once = () => events.filter((event, i) => event.error || events.findIndex(other => other.jti === event.jti) === i);
    const until = async () => { for (let i = 0; once().length < wanted.length; i++) { must(i < 1200, `${once().map(e => e.error ?? word(e))} instead of ${wanted}`); await sleep(50); } };
    same('verification', (await soc.call(there.verification_endpoint, { stream_id: soc.stream.stream_id, state: 'a state' })).status, 204);
    wanted.push('verification');
    await until();
    const began = performance.now();
    own.admin('user', 'disable', 'erin');
    wanted.push('account-disabled', 'session-revoked');
    await until();
    const took = Math.round(performance.now() - began);
    const rounds = E.KEYCLOAK ? Number(process.env.SIGNAL_KILLS ?? 8) : 4;
    for (let i = 0; i < rounds; i++) {
      const [idp, theirs] = [[1, 0], [0, 1], [1, 1]][i % 3];
      if (theirs) await close();
      own.admin('user', 'enable', 'erin');
      own.admin('user', 'disable', 'erin');
      wanted.push('account-enabled', 'account-disabled', 'session-revoked');
      await sleep(i * 15);
      if (idp) await own.kill();
      if (theirs) { await sleep(100); listener = await listen(); }
      if (idp) await own.again();
      await until();
    }
    same('in their order, each once in effect', once().map(event => event.error ?? word(event)), wanted);
    // Who fetches has the same, until it says that it has it.
    const fetched = [];
    for (let ack = [], more = true; more;) {
      const { sets } = await (await archive.call(archive.stream.delivery.endpoint_url, { returnImmediately: true, maxEvents: 5, ack })).json();
      for (const [jti, set] of Object.entries(sets)) { const payload = await open(set, 'archive'); must(payload.jti === jti, jti); fetched.push(word(payload)); }
      more = (ack = Object.keys(sets)).length > 0;
    }
    same('fetched', fetched.sort(), wanted.slice(1).sort());
    same('nothing waits', JSON.parse(own.admin('stream', 'list')).map(({ client, status, waiting }) => [client, status, waiting]), [['archive', 'enabled', 0], ['soc', 'enabled', 0]]);
    await close();
    await own.stop();
    return `${took} ms from the command to the listener, the command itself included; ${rounds} kills, ${events.length - once().length} came twice`;
  });

  // ---------- Keycloak; it takes most of a minute to start ----------
  if (!E.KEYCLOAK) return console.log('skipped Keycloak as upstream              ./test --long runs it');
  const keycloakItself = `Keycloak ${/keycloak-(\d[\w.]*)$/.exec(E.KEYCLOAK)?.[1] ?? ''}`.trim();
  // Its signals go to this machine here, where it has no certificate; by itself it posts to https alone, and about nobody.
  const signals = ['allow-insecure-push-targets=true', 'default-subjects=ALL', 'outbox-drainer-interval=1s'].map(option => `--spi-ssf-transmitter--default--${option}`);
  let started;
  const running = () => started ??= (async () => keycloak({ folder: E.KEYCLOAK, port: await freePort(), features: 'jwt-authorization-grant,ssf', more: signals, log: join(scratch, 'keycloak-upstream.log') }))();
  await row(keycloakItself, 'as upstream, by our key; groups with and without their path; a user disabled, or signed out, there is gone here after a minute, and at once with its back-channel logout', async () => {
    const own = await serve('upstream_check_minutes = 1');
    const kc = await running();
    try {
      const issuer = `${kc.at}/realms/corp`;
      await kc.api('POST', 'realms', { realm: 'corp', enabled: true });
      const group = await kc.api('POST', 'realms/corp/groups', { name: 'Company' });
      await kc.api('POST', `realms/corp/groups/${group}/children`, { name: 'Makers' });
      const people = {}, password = 'a long passphrase';
      for (const [username, firstName] of [['ada', 'Ada'], ['bob', 'Bob'], ['eve', 'Eve']])
        people[username] = await kc.api('POST', 'realms/corp/users', { username, enabled: true, email: `${username}@acme.example`, emailVerified: true, firstName, lastName: 'Example', groups: username === 'eve' ? [] : ['/Company/Makers'], credentials: [{ type: 'password', value: password, temporary: false }] });
      const client = await kc.api('POST', 'realms/corp/clients', {
        clientId: 'front', enabled: true, publicClient: false, standardFlowEnabled: true, redirectUris: [`${own.idp}/callback/corp`], clientAuthenticatorType: 'client-jwt',
        attributes: { 'use.jwks.url': 'true', 'jwks.url': `${own.idp}/jwks`, 'token.endpoint.auth.signing.alg': 'ES256', 'pkce.code.challenge.method': 'S256' },
      });
      const mapper = { name: 'groups', protocol: 'openid-connect', protocolMapper: 'oidc-group-membership-mapper', config: { 'claim.name': 'groups', 'full.path': 'false', 'id.token.claim': 'true', 'access.token.claim': 'false', 'userinfo.token.claim': 'false' } };
      const made = await kc.api('POST', `realms/corp/clients/${client}/protocol-mappers/models`, mapper);
      add(own, 'corp', issuer, '--preset', 'keycloak', '--just-in-time', '--domain', 'acme.example', '--group', 'Makers=engineering');
      const check = () => spawnSync(E.PASSAVANT, ['admin', '--config', own.config, 'upstream', 'check', 'corp'], { encoding: 'utf8' });
      const right = check();
      must(right.status === 0, right.stdout + right.stderr);
      const sign = (user, more) => signIn(own, 'corp', { user, pass: password, ...more });
      const began = seconds(), ada = await sign('ada');
      same('ID token', [ada.claims.preferred_username, ada.claims.name, ada.claims.email, ada.claims.email_verified, ada.claims.groups], ['ada', 'Ada Example', 'ada@acme.example', true, ['engineering']]);
      must(ada.claims.auth_time >= began - 1 && ada.claims.auth_time <= seconds(), `auth_time ${ada.claims.auth_time}`);
      same('known by its id', JSON.parse(own.admin('upstream', 'links', 'corp')).map(link => [link.issuer, link.subject]), [[issuer, people.ada]]);
      for (const [kind, token] of [['id_token', ada.id_token], ['refresh_token', ada.refresh_token]]) {
        const { status, access_token, error_description } = await exchange(own, kind, token);
        must(status === 200, `${kind}: ${error_description}`);
        same(`${kind}: redeemed`, await redeem(own, access_token), [200, 'canvas.read']);
      }
      // With the path, another mapping is needed: the name alone means nothing then.
      await kc.api('PUT', `realms/corp/clients/${client}/protocol-mappers/models/${made}`, { ...mapper, id: made, config: { ...mapper.config, 'full.path': 'true' } });
      same('with the path', (await sign('ada')).claims.groups ?? [], []);
      own.admin('upstream', 'change', 'corp', '--group', '/Company/Makers=engineering');
      const [again, bob, eve] = [await sign('ada'), await sign('bob'), await sign('eve')];
      same('mapped by its path', [again.claims.groups, bob.claims.groups, eve.claims.groups ?? []], [['engineering'], ['engineering'], []]);
      same('without the group', (await exchange(own, 'refresh_token', eve.refresh_token)).error, 'access_denied');
      // Here its own clock counts, as that of our assertions does.
      const user = await kc.api('GET', `realms/corp/users/${people.ada}`);
      await kc.api('PUT', `realms/corp/users/${people.ada}`, { ...user, enabled: false });
      await kc.api('POST', `realms/corp/users/${people.bob}/logout`);
      const statuses = async () => Promise.all([again, bob].map(async ({ refresh_token }) => { const { status, error } = await exchange(own, 'refresh_token', refresh_token); return error ?? status; }));
      same('within the minute', await statuses(), [200, 200]);
      await sleep(61_000);
      same('after it', [...await statuses(), (await refresh(own, again.refresh_token)).error, (await refresh(own, eve.refresh_token)).status], ['invalid_grant', 'invalid_grant', 'invalid_grant', 200]);
      for (const name of ['ada', 'bob']) same(`why ${name}`, trail(own, '--event', 'upstream_check', '--person', name).map(({ outcome, details }) => [outcome, details.reason, details.issuer, details.detail]), [['refused', 'upstream_check.ended', issuer, 'invalid_grant']]);
      // Where Keycloak tells of a sign-out, it is seen here at once: of one session, and of all that a person has.
      const held = await kc.api('GET', `realms/corp/clients/${client}`);
      await kc.api('PUT', `realms/corp/clients/${client}`, { ...held, attributes: { ...held.attributes, 'backchannel.logout.url': `${own.idp}/backchannel_logout/corp`, 'backchannel.logout.session.required': 'true' } });
      const [desk, phone, third] = [await sign('bob'), await sign('bob'), await sign('eve')];
      same('before a sign-out', [await left(own, desk), await left(own, phone)], [live, live]);
      const sessions = await kc.api('GET', `realms/corp/users/${people.bob}/sessions`);
      same('its sessions', sessions.length, 2);
      await kc.api('DELETE', `realms/corp/sessions/${sessions[0].id}`);
      const after = [await left(own, desk), await left(own, phone)];
      same('one of two', after.map(found => JSON.stringify(found)).sort(), [live, ended].map(found => JSON.stringify(found)).sort());
      await kc.api('POST', `realms/corp/users/${people.bob}/logout`);
      same('all of a person', [await left(own, desk), await left(own, phone), (await refresh(own, phone.refresh_token)).error], [ended, ended, 'invalid_grant']);
      same('on record', outs(own).map(({ outcome, person, details }) => [outcome, person, details.issuer, details.subject, details.count]), ['1', '1'].map(count => ['granted', desk.claims.sub, issuer, people.bob, count]));
      // Who signs out here goes on to Keycloak's own page, which asks.
      const { html } = await browse(`${own.idp}/logout`, BACK, { jar: third.jar });
      const there = /<a class="button" href="([^"]+)">/.exec(html)?.[1].replaceAll('&amp;', '&');
      same('where the button leads', there, `${issuer}/protocol/openid-connect/logout?client_id=front`);
      same('before', (await kc.api('GET', `realms/corp/users/${people.eve}/sessions`)).length > 0, true);
      await browse(there, BACK, { jar: third.jar });
      same('signed out there', (await kc.api('GET', `realms/corp/users/${people.eve}/sessions`)).length, 1);
      // Keycloak tells neither of a user who is switched off, nor of anything while its front-channel logout is on: that is left to the check.
      const [told, fourth] = [outs(own, '--outcome', 'granted').length, await sign('bob')];
      await kc.api('PUT', `realms/corp/clients/${client}`, { ...await kc.api('GET', `realms/corp/clients/${client}`), frontchannelLogout: true });
      await kc.api('POST', `realms/corp/users/${people.bob}/logout`);
      await kc.api('PUT', `realms/corp/clients/${client}`, { ...await kc.api('GET', `realms/corp/clients/${client}`), frontchannelLogout: false });
      const [fifth, record] = [await sign('bob'), await kc.api('GET', `realms/corp/users/${people.bob}`)];
      await kc.api('PUT', `realms/corp/users/${people.bob}`, { ...record, enabled: false });
      await sleep(1000);
      same('told to nobody else', [await left(own, fourth), await left(own, fifth), outs(own, '--outcome', 'granted').length - told], [live, live, 0]);
      // A redirect URI that is not registered there.
      await kc.api('PUT', `realms/corp/clients/${client}`, { ...await kc.api('GET', `realms/corp/clients/${client}`), redirectUris: [`${own.idp}/callback/other`] });
      const wrong = check();
      must(wrong.status !== 0 && wrong.stdout.includes(`register the redirect URI ${own.idp}/callback/corp`), wrong.stdout);
      return right.stdout.split('\n').filter(line => line.startsWith('ok')).length + ' legs';
    } finally {
      await own.stop();
    }
  });

  await row(keycloakItself, 'as upstream by SAML: each reads the other\'s metadata; signed assertion, signed response, both; requests signed; groups, persistent names; what it sends unsigned, encrypted or unasked is refused', async () => {
    const own = await serve(), kc = await running(), realm = 'staff', password = 'a long passphrase';
    try {
      await kc.api('POST', 'realms', { realm, enabled: true });
      for (const name of ['Makers', 'Writers']) await kc.api('POST', `realms/${realm}/groups`, { name });
      const people = {};
      for (const [username, groups] of [['ada', ['/Makers', '/Writers']], ['eve', []]])
        people[username] = await kc.api('POST', `realms/${realm}/users`, { username, enabled: true, email: `${username}@acme.example`, emailVerified: true, firstName: username, lastName: 'Example', groups, credentials: [{ type: 'password', value: password, temporary: false }] });
      const file = join(scratch, 'keycloak-saml.xml');
      writeFileSync(file, await (await fetch(`${kc.at}/realms/${realm}/protocol/saml/descriptor`)).text());
      const made = JSON.parse(own.admin('upstream', 'add', 'corp', '--metadata', file, '--preset', 'keycloak', '--just-in-time', '--domain', 'acme.example', '--group', 'Makers=engineering'));
      same('what its metadata says', [made.issuer, made.saml.sign_requests, made.saml.service_provider], [`${kc.at}/realms/${realm}`, true, `${own.idp}/saml/corp`]);
      const check = () => spawnSync(E.PASSAVANT, ['admin', '--config', own.config, 'upstream', 'check', 'corp'], { encoding: 'utf8' });
      const unknown = check();
      must(unknown.status !== 0 && unknown.stdout.includes('enter our metadata'), unknown.stdout);
      // Keycloak makes its client of our metadata.
      const metadata = await (await fetch(made.saml.service_provider)).text();
      const described = await kc.api('POST', `realms/${realm}/client-description-converter`, metadata, 'application/xml');
      const client = await kc.api('POST', `realms/${realm}/clients`, { ...described, name: 'Passavant' });
      const mapper = (name, protocolMapper, config) => kc.api('POST', `realms/${realm}/clients/${client}/protocol-mappers/models`, { name, protocol: 'saml', protocolMapper, config });
      for (const [name, property] of [['email', 'email'], ['username', 'username'], ['firstName', 'firstName'], ['lastName', 'lastName']])
        await mapper(name, 'saml-user-property-mapper', { 'user.attribute': property, 'attribute.name': name, 'attribute.nameformat': 'Basic' });
      await mapper('groups', 'saml-group-membership-mapper', { 'attribute.name': 'groups', 'attribute.nameformat': 'Basic', single: 'false', 'full.path': 'false' });
      const set = async (attributes, more = {}) => {
        const held = await kc.api('GET', `realms/${realm}/clients/${client}`);
        await kc.api('PUT', `realms/${realm}/clients/${client}`, { ...held, ...more, attributes: { ...held.attributes, ...attributes } });
      };
      const right = check();
      must(right.status === 0, right.stdout + right.stderr);
      const sign = (user, more = {}) => signIn(own, 'corp', { user, pass: password }, more);
      const signed = [];
      let first;
      for (const [what, response, assertion] of [['as imported'], ['the response alone', 'true', 'false'], ['the assertion alone', 'false', 'true'], ['both', 'true', 'true']]) {
        if (response) await set({ 'saml.server.signature': response, 'saml.assertion.signature': assertion });
        const began = seconds(), ada = await sign('ada');
        first ??= ada;
        same(what, [ada.claims.preferred_username, ada.claims.email, ada.claims.email_verified, ada.claims.groups], ['ada', 'ada@acme.example', true, ['engineering']]);
        same(`${what}: the same person`, ada.claims.sub, first.claims.sub);
        must(ada.claims.auth_time >= began - 1 && ada.claims.auth_time <= seconds() + 1, `auth_time ${ada.claims.auth_time}`);
        signed.push(what);
      }
      const [link] = JSON.parse(own.admin('upstream', 'links', 'corp'));
      must(link.issuer === made.issuer && /^G-[0-9a-f-]{36}$/.test(link.subject), JSON.stringify(link));
      const { status, access_token } = await exchange(own, 'id_token', first.id_token);
      same('exchanged', status, 200);
      same('redeemed', await redeem(own, access_token), [200, 'canvas.read']);
      same('without the group', (await exchange(own, 'id_token', (await sign('eve')).id_token)).error, 'access_denied');
      // SHA-512, and inclusive prefixes as other signers write them.
      await set({ 'saml.signature.algorithm': 'RSA_SHA512' });
      await sign('ada');
      // SHA-1 is verified by nobody here, and nothing unsigned or encrypted is read.
      const refusedWith = async reason => {
        let refused = '';
        try { await sign('ada'); } catch (error) { refused = error.message; }
        const row = trail(own, '--event', 'sign_in', '--outcome', 'refused').at(-1);
        must(refused && row.details.reason === reason, `${reason}: ${refused} ${JSON.stringify(row)}`);
        return row.details.detail;
      };
      await set({ 'saml.signature.algorithm': 'RSA_SHA1' });
      const sha1 = await refusedWith('sign_in.upstream_invalid');
      must(sha1.includes('rsa-sha1'), sha1);
      await set({ 'saml.signature.algorithm': 'RSA_SHA256', 'saml.server.signature': 'false', 'saml.assertion.signature': 'false' });
      const bare = await refusedWith('sign_in.upstream_invalid');
      must(bare.includes('neither the response nor its assertion'), bare);
      const certificate = /<ds:X509Certificate>([^<]+)</.exec(metadata)[1];
      await set({ 'saml.server.signature': 'true', 'saml.assertion.signature': 'true', 'saml.encrypt': 'true', 'saml.encryption.certificate': certificate });
      const hidden = await refusedWith('sign_in.encrypted');
      must(hidden.includes('switched off at the identity provider'), hidden);
      await set({ 'saml.encrypt': 'false' });
      // A name that may be given to somebody else is not what people are known by.
      await set({ saml_name_id_format: 'username', saml_force_name_id_format: 'true' });
      must((await refusedWith('sign_in.claim')).includes('unspecified'), 'the format');
      await set({ saml_force_name_id_format: 'false' });
      // What nobody here asked for: from a tile of a portal.
      await set({ saml_idp_initiated_sso_url_name: 'tile', saml_assertion_consumer_url_post: `${own.idp}/callback/corp` });
      let unasked = '';
      try { await browse(`${kc.at}/realms/${realm}/protocol/saml/clients/tile`, BACK, { user: 'ada', pass: password }); } catch (error) { unasked = error.message; }
      must(unasked.includes('not begun here'), unasked);
      // A request that is not signed is refused there, and the check says who has to change what.
      own.admin('upstream', 'change', 'corp', '--sign-requests', 'false');
      const open = check();
      must(open.status !== 0 && open.stdout.includes('our certificate'), open.stdout);
      own.admin('upstream', 'change', 'corp', '--sign-requests', 'true');
      // Our next certificate is in our metadata before it signs.
      own.admin('upstream', 'change', 'corp', '--proof', 'certificate');
      const both = (await (await fetch(made.saml.service_provider)).text()).match(/X509Certificate>/g).length / 2;
      same('certificates in our metadata', both, 2);
      await sign('ada');
      // An MCP server's authorization server whose people sign in there by SAML, too, finds them by their name there.
      own.admin('server', 'change', own.canvas.ras, '--sub-id', 'saml-nameid');
      const { access_token: named } = await exchange(own, 'id_token', (await sign('ada')).id_token);
      same('sub_id', claims(named).sub_id, { format: 'saml-nameid', issuer: made.issuer, nameid: link.subject, nameid_format: 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent', ...(claims(named).sub_id.name_qualifier && { name_qualifier: claims(named).sub_id.name_qualifier }), ...(claims(named).sub_id.sp_name_qualifier && { sp_name_qualifier: claims(named).sub_id.sp_name_qualifier }) });
      // An application that signs people in at Keycloak by SAML by itself: what it got there becomes a refresh token here.
      const entity = 'https://agent.example/saml', acs = await freePort();
      const posted = new Promise(resolve => {
        const server = createServer(async (request, response) => {
          let body = '';
          for await (const part of request) body += part;
          response.end('<p>signed in</p>');
          server.close();
          resolve(Buffer.from(new URLSearchParams(body).get('SAMLResponse'), 'base64').toString());
        }).listen(acs, '127.0.0.1');
      });
      const agent = await kc.api('POST', `realms/${realm}/clients`, {
        clientId: entity, protocol: 'saml', enabled: true, redirectUris: [`http://127.0.0.1:${acs}/*`],
        attributes: { 'saml.client.signature': 'false', 'saml.assertion.signature': 'true', 'saml.server.signature': 'false', 'saml.force.post.binding': 'true', 'saml.authnstatement': 'true', saml_idp_initiated_sso_url_name: 'agent', saml_assertion_consumer_url_post: `http://127.0.0.1:${acs}/acs`, saml_name_id_format: 'persistent', saml_force_name_id_format: 'true' },
      });
      await browse(`${kc.at}/realms/${realm}/protocol/saml/clients/agent`, BACK, { user: 'ada', pass: password });
      // With the namespaces that the response around it declares, as a library cuts it out.
      const answer = await posted, [root] = /<\w+:Response[^>]*>/.exec(answer), [part] = /<(\w+:)?Assertion[\s\S]*<\/(\w+:)?Assertion>/.exec(answer);
      const [start] = /<[^>]*>/.exec(part);
      const declared = [...root.matchAll(/xmlns:(\w+)="[^"]*"/g)].filter(([, prefix]) => !start.includes(`xmlns:${prefix}=`)).map(([text]) => ` ${text}`).join('');
      const assertion = part.replace(/>/, `${declared}>`);
      const asked = { grant_type: EXCHANGE, requested_token_type: 'urn:ietf:params:oauth:token-type:refresh_token', subject_token: Buffer.from(assertion).toString('base64url'), subject_token_type: 'urn:ietf:params:oauth:token-type:saml2', scope: 'openid offline_access email' };
      same('not for this client', (await post(own, asked)).error, 'invalid_request');
      own.admin('client', 'change', 'agent', '--saml-entity-id', entity);
      // People have another persistent name at each service provider: an administrator says who this is.
      const name = /<(?:\w+:)?NameID[^>]*>([^<]+)</.exec(assertion)[1];
      if (name !== link.subject) own.admin('upstream', 'link', 'corp', '--user', 'ada', '--subject', name);
      const got = await post(own, asked);
      must(got.status === 200 && got.token_type === 'N_A' && got.issued_token_type.endsWith('refresh_token'), JSON.stringify([got, trail(own, '--event', 'assertion_exchange').at(-1)]));
      const jag = await exchange(own, 'refresh_token', got.access_token);
      must(jag.status === 200, JSON.stringify(jag));
      same('its ID-JAG', [jag.status, claims(jag.access_token).sub], [200, first.claims.sub]);
      same('which is redeemed', await redeem(own, jag.access_token), [200, 'canvas.read']);
      same('once', (await post(own, asked)).error, 'invalid_grant');
      await kc.api('DELETE', `realms/${realm}/clients/${agent}`);
      // A new sign-in where one is asked for: it asks for the password again.
      const again = await signIn(own, 'corp', { user: 'ada', pass: password, jar: (await sign('ada')).jar }, { prompt: 'login' });
      must(again.trail.some(({ method, url }) => method === 'POST' && url.includes('login-actions')), 'the password was asked for');
      return `${signed.length} ways to sign; ${right.stdout.split('\n').filter(line => line.startsWith('ok')).length} legs`;
    } finally {
      await own.stop();
    }
  });
  await row(keycloakItself, 'transmits shared signals: a stream to our IdP; its verification is heard, and a user who is signed out there is gone here at once, by no other way; for another audience nothing ends', async () => {
    const own = await serve('grants_per_minute = 100000'), kc = await running(), realm = 'signals', password = 'a long passphrase', receiver = 'a secret of the receiver and nobody else';
    try {
      const issuer = `${kc.at}/realms/${realm}`, caep = 'https://schemas.openid.net/secevent/caep/event-type';
      await kc.api('POST', 'realms', { realm, enabled: true, attributes: { 'ssf.transmitterEnabled': 'true' } });
      const bob = await kc.api('POST', `realms/${realm}/users`, { username: 'bob', enabled: true, email: 'bob@acme.example', emailVerified: true, firstName: 'Bob', lastName: 'Example', credentials: [{ type: 'password', value: password, temporary: false }] });
      await kc.api('POST', `realms/${realm}/clients`, {
        clientId: 'front', enabled: true, publicClient: false, standardFlowEnabled: true, redirectUris: [`${own.idp}/callback/corp`], clientAuthenticatorType: 'client-jwt',
        attributes: { 'use.jwks.url': 'true', 'jwks.url': `${own.idp}/jwks`, 'token.endpoint.auth.signing.alg': 'ES256' },
      });
      const [session, credential] = ['session-revoked', 'credential-change'].map(event => `${caep}/${event}`);
      await kc.api('POST', `realms/${realm}/clients`, {
        clientId: 'receiver', secret: receiver, enabled: true, publicClient: false, serviceAccountsEnabled: true, standardFlowEnabled: false, optionalClientScopes: ['ssf.read', 'ssf.manage'],
        attributes: { 'ssf.enabled': 'true', 'ssf.defaultSubjects': 'ALL', 'ssf.validPushUrls': `${own.idp}/*`, 'ssf.autoVerifyStream': 'false', 'ssf.supportedEvents': `${session},${credential}` },
      });
      add(own, 'corp', issuer, '--preset', 'keycloak', '--just-in-time', '--domain', 'acme.example');
      // The audience is its own choice, told when the stream is made.
      const made = JSON.parse(own.admin('transmitter', 'add', 'corp', '--issuer', issuer, '--audience', 'not known yet', '--speaks-for', 'corp'));
      const asked = await fetch(`${issuer}/protocol/openid-connect/token`, { method: 'POST', body: new URLSearchParams({ grant_type: 'client_credentials', client_id: 'receiver', client_secret: receiver, scope: 'ssf.read ssf.manage' }) });
      const { access_token } = await asked.json(), there = await (await fetch(`${issuer}/.well-known/ssf-configuration`)).json();
      const call = async (url, body) => {
        const answer = await fetch(url, { method: 'POST', headers: { authorization: `Bearer ${access_token}`, 'content-type': 'application/json' }, body: JSON.stringify(body) });
        const text = await answer.text();
        must(answer.ok, `${url}: ${answer.status} ${text}`);
        return text ? JSON.parse(text) : undefined;
      };
      const stream = await call(there.configuration_endpoint, { events_requested: [session, credential], delivery: { method: 'urn:ietf:rfc:8935', endpoint_url: made.endpoint_url, authorization_header: made.authorization_header } });
      const audience = [stream.aud].flat()[0];
      own.admin('transmitter', 'change', 'corp', '--audience', audience);
      await call(there.verification_endpoint, { stream_id: stream.stream_id, state: 'a state' });
      const heard = () => trail(own, '--event', 'signal.heard').map(({ outcome, details }) => [outcome, details.reason ?? details.signal]);
      let one, two;
      const until = async (what, done) => { for (let i = 0; !await done(); i++) { must(i < 200, `${what}: ${JSON.stringify(trail(own, '--event', 'signal.heard'))} ${JSON.stringify([await left(own, one ?? {}), await left(own, two ?? {})])}`); await sleep(50); } };
      await until('verified', () => heard().some(([outcome, what]) => outcome === 'granted' && what === 'verification'));
      const sign = () => signIn(own, 'corp', { user: 'bob', pass: password });
      one = await sign(); two = await sign();
      // In no group: the policy refuses, and the sign-in stands.
      const stands = ['access_denied', 'access_denied', 'a code'], over = ['access_denied', 'invalid_grant', 'login_required'];
      same('before', [await left(own, one), await left(own, two)], [stands, stands]);
      await kc.api('PUT', `realms/${realm}/users/${bob}/reset-password`, { type: 'password', value: password, temporary: false });
      const began = Date.now();
      await kc.api('POST', `realms/${realm}/users/${bob}/logout`);
      await until('signed out', async () => JSON.stringify([await left(own, one), await left(own, two)]) === JSON.stringify([over, over]));
      const took = Date.now() - began;
      must(heard().some(([outcome, what]) => outcome === 'granted' && what === 'session-revoked'), JSON.stringify(heard()));
      must((await refresh(own, one.refresh_token)).error === 'invalid_grant', 'a refresh token is left');
      await sleep(1100);
      const later = await sign();
      own.admin('transmitter', 'change', 'corp', '--audience', 'somebody else');
      await kc.api('POST', `realms/${realm}/users/${bob}/logout`);
      await until('refused', () => heard().some(([outcome, what]) => outcome === 'refused' && what === 'signal.token'));
      same('for another audience', await left(own, later), stands);
      return `${took} ms after the sign-out there, its own pause of a second included`;
    } finally {
      await own.stop();
    }
  });

  await row(keycloakItself, 'as an application of ours: a person who is switched off here is signed out there; while it does not answer, it is told later', async () => {
    const own = await serve(), kc = await running(), realm = 'app', BYE = 'http://127.0.0.1:8765/back';
    try {
      const password = 'correct horse battery staple';
      run(E.PASSAVANT, ['admin', '--config', own.config, '--json', 'user', 'add', 'eve', '--email', 'eve@acme.example', '--email-verified', '--given-name', 'Eve', '--family-name', 'Example'], {}, `${password}\n`);
      const secret = join(scratch, 'keycloak-secret'), endpoint = `${kc.at}/realms/${realm}/protocol/openid-connect`;
      own.admin('client', 'add', 'Keycloak', '--id', 'keycloak', '--redirect-uri', `${kc.at}/realms/${realm}/broker/passavant/endpoint`, '--backchannel-logout-uri', `${endpoint}/logout/backchannel-logout`, '--secret-out', secret);
      await kc.api('POST', 'realms', { realm, enabled: true });
      const action = await kc.api('GET', `realms/${realm}/authentication/required-actions/VERIFY_PROFILE`);
      await kc.api('PUT', `realms/${realm}/authentication/required-actions/VERIFY_PROFILE`, { ...action, enabled: false });
      const review = (await kc.api('GET', `realms/${realm}/authentication/flows/first%20broker%20login/executions`)).find(found => found.authenticationConfig && found.providerId === 'idp-review-profile');
      const config = await kc.api('GET', `realms/${realm}/authentication/config/${review.authenticationConfig}`);
      await kc.api('PUT', `realms/${realm}/authentication/config/${review.authenticationConfig}`, { ...config, config: { 'update.profile.on.first.login': 'off' } });
      // What Keycloak makes of our discovery document; it knows by it whether logout tokens come.
      const found = await kc.api('POST', `realms/${realm}/identity-provider/import-config`, { providerId: 'oidc', fromUrl: `${own.idp}/.well-known/openid-configuration` });
      await kc.api('POST', `realms/${realm}/identity-provider/instances`, { alias: 'passavant', providerId: 'oidc', enabled: true, trustEmail: true, config: {
        ...found, clientId: 'keycloak', clientSecret: readFileSync(secret, 'utf8').trim(), clientAuthMethod: 'client_secret_basic', defaultScope: 'openid profile email', useJwksUrl: 'true', validateSignature: 'true', pkceEnabled: 'true', pkceMethod: 'S256', backchannelSupported: 'true',
      } });
      await kc.api('POST', `realms/${realm}/clients`, { clientId: 'desk', enabled: true, publicClient: true, redirectUris: [BYE] });
      const sign = async () => {
        const query = new URLSearchParams({ client_id: 'desk', redirect_uri: BYE, response_type: 'code', scope: 'openid', kc_idp_hint: 'passavant' });
        const { url } = await browse(`${endpoint}/auth?${query}`, BYE, { user: 'eve', pass: password });
        must(url?.searchParams.get('code'), String(url));
      };
      await sign();
      const [{ id }] = await kc.api('GET', `realms/${realm}/users?username=eve`);
      const sessions = async () => (await kc.api('GET', `realms/${realm}/users/${id}/sessions`)).length;
      const until = async expected => { for (let i = 0; await sessions() !== expected; i++) { must(i < 100, `${await sessions()} sessions: ${JSON.stringify(trail(own, '--event', 'logout_notice'))}`); await sleep(100); } };
      same('signed in there', await sessions(), 1);
      await sign();
      same('twice', await sessions(), 2);
      own.admin('user', 'disable', 'eve');
      await until(0);
      same('on record', trail(own, '--event', 'logout_notice').map(({ outcome, client }) => [outcome, client]), [['granted', 'keycloak'], ['granted', 'keycloak']]);
      // Nothing is lost where it cannot be reached: an address of it that nobody listens at, and then the right one.
      own.admin('user', 'enable', 'eve');
      await sign();
      own.admin('client', 'change', 'keycloak', '--backchannel-logout-uri', `http://127.0.0.1:${await freePort()}/logout`);
      own.admin('user', 'disable', 'eve');
      await sleep(1500);
      same('not told yet', await sessions(), 1);
      own.admin('client', 'change', 'keycloak', '--backchannel-logout-uri', `${endpoint}/logout/backchannel-logout`);
      await until(0);
    } finally {
      await own.stop();
    }
  });
  if (started) (await started).stop();
}
