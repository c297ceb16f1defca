// The IdP in front of other identity providers: oidc-provider, a second Passavant, and Keycloak, at which people sign
// in and which are asked later on whether they are still there.
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
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
  const { row, run, must, version, node24, freePort, isFree, here, scratch, E } = kit;
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
    return { told: () => readFileSync(log, 'utf8'), stop: async () => { child.kill('SIGTERM'); await ended; } };
  }

  // ---------- oidc-provider ----------
  let providers = 0;
  /** An oidc-provider with one client, `front`, for `passavant` as the upstream `name`, and the people `people`. */
  async function provider(name, company, people, { client = {}, configuration = {} } = {}) {
    const port = await freePort(), issuer = `http://localhost:${port}`, folder = join(scratch, `op-${++providers}`);
    mkdirSync(folder);
    const write = (file, value) => writeFileSync(join(folder, file), JSON.stringify(value));
    const front = {
      client_id: 'front', redirect_uris: [`${company.idp}/callback/${name}`], grant_types: ['authorization_code', 'refresh_token'],
      token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'ES256', jwks_uri: `${company.idp}/jwks`, ...client,
    };
    for (const absent of Object.keys(front).filter(key => front[key] === undefined)) delete front[absent];
    write('settings.json', { port, issuer, configuration: { clients: [front], ...configuration } });
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
  const person = (username, more = {}, rest = {}) => ({ username, password: `the password of ${username}`, claims: { preferred_username: username, ...more }, ...rest });

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
    const server = await start(`company-${companies}`, E.PASSAVANT, ['serve', '--config', config], port, env);
    for (let i = 0; !server.told().includes('ready'); i++) { must(i < 200, server.told()); await sleep(20); }
    const admin = (...args) => run(E.PASSAVANT, ['admin', '--config', config, '--json', ...args]);
    const scopes = ['--scopes', 'canvas.read'];
    admin('group', 'add', 'engineering');
    admin('--ras', 'canvas', 'resource', 'add', canvas.mcp, ...scopes);
    admin('--ras', 'canvas', 'trust', 'add', idp, '--just-in-time');
    admin('--ras', 'canvas', 'client', 'add', 'Agent', '--id', 'acme-canvas', '--secret-out', join(folder, 'canvas.secret'));
    admin('server', 'add', canvas.ras, '--name', 'Canvas');
    admin('resource', 'add', canvas.mcp, '--server', canvas.ras, '--name', 'Canvas', ...scopes);
    admin('client', 'add', 'Agent', '--id', 'agent', '--redirect-uri', 'http://127.0.0.1/callback', '--secret-out', join(folder, 'agent.secret'));
    admin('connection', 'add', 'engineering-canvas', '--client', 'agent', '--audience', canvas.ras, '--ras-client-id', 'acme-canvas', '--resource', canvas.mcp, ...scopes, '--group', 'engineering');
    const secret = name => readFileSync(join(folder, `${name}.secret`), 'utf8').trim();
    return { idp, canvas, admin, config, secret, stop: server.stop, told: server.told, client: { id: 'agent', secret: secret('agent') }, target: { audience: canvas.ras, resource: canvas.mcp } };
  }

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
      const redeemed = await fetch(`${company.canvas.ras}/token`, { method: 'POST', headers: { authorization: `Basic ${btoa(`acme-canvas:${company.secret('canvas').trim()}`)}` }, body: new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion: access_token }) });
      const { scope } = await redeemed.json();
      must(redeemed.status === 200 && scope.split(' ').includes('canvas.read'), `redeemed: ${redeemed.status} ${scope}`);
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
    // Without a class and methods that it told, ours say none.
    must(!tokens.claims.acr && !tokens.claims.amr?.length, JSON.stringify(tokens.claims));
    company.admin('upstream', 'delete', 'lea');
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
}
