// Third-party identity systems on either side of ours: as RAS, as issuer of tokens that a gateway
// accepts, as relying party.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { browse } from './browser.mjs';
import { keycloak } from './keycloak.mjs';

export default async function rows(kit) {
  await relyingParties(kit);
  await others(kit);
  // Only in long runs, because their requirements are large.
  if (kit.E.OAUTH2_PROXY) await proxyRows(kit);
  else console.log('skipped oauth2-proxy                      ./test --long runs it');
  if (kit.E.KEYCLOAK) await keycloakRows(kit);
  else console.log('skipped Keycloak                          ./test --long runs it');
}

const claims = token => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));

/** Starts a program, and waits until something listens on its port. */
function starter({ scratch, must, isFree }) {
  const children = [];
  process.on('exit', () => children.forEach(child => child.kill('SIGTERM')));
  const start = async (name, program, args, port, env = {}) => {
    const log = join(scratch, `${name}.log`), file = openSync(log, 'w');
    const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', file, file] });
    children.push(child);
    for (let i = 0; await isFree(port); i++) {
      must(i < 300 && child.exitCode === null, `${name} did not come up:\n${readFileSync(log, 'utf8')}`);
      await new Promise(r => setTimeout(r, 100));
    }
    return child;
  };
  return { start, stop: () => children.forEach(child => child.kill('SIGTERM')) };
}

/** `passavant serve` with a gateway alone, before one MCP server; `routes` are [path, authorization server, more TOML]. */
async function gateway({ run, freePort, isFree, scratch, E }, start, upstream, routes) {
  let port;
  do port = await freePort(); while (!(await isFree(port + 1)));
  const folder = join(scratch, `gateway-${port}`);
  mkdirSync(folder, { mode: 0o700 });
  for (const file of ['passavant.key', 'passavant.admin-secret']) writeFileSync(join(folder, file), Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64url'), { mode: 0o600 });
  const written = routes.map(([path, issuer, more]) => `
[[gateway.route]]
resource = "http://127.0.0.1:${port}${path}"
upstream = "${upstream}"
authorization_server = "${issuer}"
${more}
[[gateway.route.rule]]
tools = ["echo", "get-*"]`);
  writeFileSync(join(folder, 'passavant.toml'), `
[keys]
file = "passavant.key"
[admin]
listen = "127.0.0.1:${port + 1}"
secret_file = "passavant.admin-secret"
[[gateway]]
listen = "127.0.0.1:${port}"
folder = "gateway"
${written.join('\n')}
`);
  run(E.PASSAVANT, ['check', '--config', join(folder, 'passavant.toml')]);
  await start(`gateway-${port}`, E.PASSAVANT, ['serve', '--config', join(folder, 'passavant.toml')], port);
  return `http://127.0.0.1:${port}`;
}
/** What a gateway says to a token: the status, and why. */
async function ask(url, token) {
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'row', version: '1' } } });
  const answer = await fetch(url, { method: 'POST', headers: { authorization: `Bearer ${token}`, accept: 'application/json, text/event-stream', 'content-type': 'application/json' }, body });
  await answer.text();
  return `${answer.status} ${/error_description="([^"]*)"/.exec(answer.headers.get('www-authenticate') ?? '')?.[1] ?? ''}`.trim();
}

/** Libraries that take RS256 unless told, or send no PKCE. */
async function relyingParties(kit) {
  const { row, run, must, json, version, idp, admin, password, freePort, here, scratch, E } = kit;
  const { start, stop } = starter(kit);
  const as = id => ({ ISSUER: idp, CLIENT_ID: id, CLIENT_SECRET: readFileSync(join(scratch, `${id}.secret`), 'utf8').trim(), LOGIN_USER: 'erin', LOGIN_PASS: password('erin') });
  const add = (id, at, ...more) => admin('client', 'add', id, '--id', id, '--redirect-uri', `${at}/callback`, '--secret-out', join(scratch, `${id}.secret`), ...more);
  await row(`openid-client ${version('openid-client5')}`, 'relying party by its defaults: RS256, no PKCE; then with PKCE and ES256', () => {
    const rp = (id, env) => json(run(process.execPath, [join(here, 'rp5.mjs')], { ...as(id), ...env }));
    add('oc5-rs', 'http://127.0.0.1', '--id-token-algorithm', 'RS256', '--pkce-optional');
    add('oc5-es', 'http://127.0.0.1');
    for (const report of [rp('oc5-rs', {}), rp('oc5-es', { PKCE: '1', ALG: 'ES256' })])
      must(report.claims.groups?.join() === 'engineering' && report.info.name === 'Erin Engineer' && report.same && report.active && report.ended === 'invalid_grant', JSON.stringify(report));
  });
  for (const [id, what, env, ...more] of [['authlib-es', 'with PKCE', { PKCE: '1' }], ['authlib-rs', 'by its defaults, RS256', {}, '--pkce-optional', '--id-token-algorithm', 'RS256']]) {
    await row('Authlib', `relying party (Starlette), ${what}`, async () => {
      const port = await freePort(), at = `http://127.0.0.1:${port}`;
      add(id, at, ...more);
      await start(id, E.PYTHON, [join(here, 'python/rp-authlib.py')], port, { ...as(id), ...env, PORT: String(port) });
      const { html } = await browse(`${at}/`, 'http://127.0.0.1:9/', { user: 'erin', pass: password('erin') });
      const { claims, info } = JSON.parse(html);
      must(claims.groups?.join() === 'engineering' && claims.sub === info.sub && info.email === 'erin@acme.example', html);
    });
  }
  stop();
}

/** Others' grants and verifiers beside our client, IdP and RAS. */
async function others(kit) {
  const { row, run, must, version, enrol, passavant, idp, canvas, admin, freePort, isFree, here, scratch, E } = kit;
  const { start, stop } = starter(kit);
  const know = (issuer, resource, rasClient, by = admin, ...more) => {
    by('server', 'add', issuer, '--name', new URL(issuer).port, ...more);
    by('resource', 'add', resource, '--server', issuer, '--name', new URL(issuer).port, '--scopes', 'read');
    by('connection', 'add', `to-${new URL(issuer).port}`, '--client', 'passavant', '--audience', issuer, ...(rasClient ? ['--ras-client-id', rasClient] : []), '--resource', resource, '--scopes', 'read', '--everyone');
  };
  await row('FastMCP', "its JWT verifier by its defaults (RS256) before an MCP server of our RAS", async () => {
    const port = await freePort(), resource = `http://localhost:${port}/mcp`;
    await start('rs-fastmcp', E.PYTHON, [join(here, 'python/rs-fastmcp.py')], port, { PORT: String(port), RAS_ISSUER: canvas.ras });
    admin('--ras', 'canvas', 'resource', 'add', resource, '--scopes', 'read', '--algorithm', 'RS256');
    admin('resource', 'add', resource, '--server', canvas.ras, '--name', 'JWT', '--scopes', 'read');
    admin('connection', 'add', 'jwt', '--client', 'passavant', '--audience', canvas.ras, '--resource', resource, '--scopes', 'read', '--everyone');
    const home = join(scratch, 'rs-fastmcp-home');
    await enrol('erin', home);
    must(passavant(home, 'call', resource, 'who').includes('read'), 'who');
    passavant(home, 'doctor', resource);
  });
  await row('Authlib', 'its draft of ID-JAG as RAS: ES256, then RS256; list, call, doctor', async () => {
    for (const more of [[], ['--id-jag-algorithm', 'RS256']]) {
      const port = await freePort(), issuer = `http://localhost:${port}`, resource = `${issuer}/mcp`, file = join(scratch, 'ras-authlib.secret');
      writeFileSync(file, 'a-secret-of-the-foreign-client-0123456789', { mode: 0o600 });
      await start(`ras-authlib${more.length}`, E.PYTHON, [join(here, 'python/ras-authlib.py')], port, { PORT: String(port), IDP_ISSUER: idp, CLIENT_ID: 'acme-agent', CLIENT_SECRET: readFileSync(file, 'utf8') });
      know(issuer, resource, 'acme-agent', admin, ...more);
      const home = join(scratch, `ras-authlib-${port}`);
      await enrol('erin', home);
      passavant(home, 'secret', issuer, 'acme-agent', '--secret-file', file);
      must(passavant(home, 'call', resource, 'who').includes('read'), 'who');
      passavant(home, 'doctor', resource);
    }
  });
  await row(`workers-oauth-provider ${version('@cloudflare/workers-oauth-provider')}`, 'in workerd as RAS by its defaults (RS256): list, call', async () => {
    // It trusts only https issuers: use a company with its own certificate authority.
    let base;
    do base = await freePort(); while (!(await Promise.all([1, 2, 3, 4, 5].map(i => isFree(base + i)))).every(Boolean));
    const log = join(scratch, 'tls-demo.log'), file = openSync(log, 'w');
    const demo = spawn(E.PASSAVANT, ['demo', '--json', '--tls', '--port', String(base)], { stdio: ['ignore', 'ignore', file] });
    process.on('exit', () => demo.kill('SIGTERM'));
    const told = () => readFileSync(log, 'utf8');
    for (let i = 0; !told().includes('Sign in as') || !/max with the password \S+\s/.test(told()); i++) {
      must(i < 300 && demo.exitCode === null, told());
      await new Promise(r => setTimeout(r, 100));
    }
    const folder = /PASSAVANT_HOME=(\S+)\/home/.exec(told())[1], roots = join(folder, 'ca.pem'), company = `https://localhost:${base}`;
    const tlsAdmin = (...args) => run(E.PASSAVANT, ['admin', '--url', `http://127.0.0.1:${base + 5}`, '--secret-file', join(folder, 'admin.secret'), '--json', ...args]);
    const port = await freePort(), issuer = `http://localhost:${port}`, resource = `${issuer}/mcp`, clientFile = join(scratch, 'worker-client.json');
    await start('worker', process.execPath, [join(here, 'ras-cloudflare.mjs')], port, { PORT: String(port), IDP_ISSUER: company, CLIENT_FILE: clientFile, NODE_EXTRA_CA_CERTS: roots });
    for (let i = 0; !existsSync(clientFile); i++) { must(i < 100, 'the worker registers nobody'); await new Promise(r => setTimeout(r, 100)); }
    const { clientId, clientSecret } = JSON.parse(readFileSync(clientFile));
    const secretFile = join(scratch, 'worker.secret'), home = join(scratch, 'worker-home');
    writeFileSync(secretFile, clientSecret, { mode: 0o600 });
    know(issuer, resource, clientId, tlsAdmin, '--id-jag-algorithm', 'RS256');
    const env = { PASSAVANT_HOME: home, PASSAVANT_EXTRA_ROOTS: roots, NODE_EXTRA_CA_CERTS: roots };
    run(process.execPath, [join(here, 'sign-in.mjs')], { ...env, PASSAVANT: E.PASSAVANT, ISSUER: company, LOGIN_USER: 'erin', LOGIN_PASS: /erin with the password (\S+)/.exec(told())[1] });
    const passavantThere = (...args) => run(E.PASSAVANT, args, env);
    passavantThere('secret', issuer, clientId, '--secret-file', secretFile);
    must(passavantThere('tools', resource).includes('who'), 'tools');
    must(passavantThere('call', resource, 'who').includes('read'), 'who');
    passavantThere('doctor', resource);
    demo.kill('SIGTERM');
  });
  stop();
}

/** oauth2-proxy before a page; it sends no PKCE unless told. */
async function proxyRows(kit) {
  const { row, must, idp, admin, password, freePort, scratch, E } = kit;
  const { start, stop } = starter(kit);
  const page = createServer((request, answer) => answer.end(JSON.stringify(request.headers))).listen(0, '127.0.0.1');
  await new Promise(r => page.once('listening', r));
  for (const [id, what, flags, registered] of [
    ['proxy-es', 'ES256', ['--code-challenge-method=S256'], []],
    ['proxy-rs', 'RS256, without PKCE', [], ['--pkce-optional', '--id-token-algorithm', 'RS256']],
  ]) {
    await row('oauth2-proxy 7', `relying party, ${what}: groups by scope, who is in another is kept out, refresh`, async () => {
      const port = await freePort(), at = `http://127.0.0.1:${port}`, file = join(scratch, `${id}.secret`);
      admin('client', 'add', 'oauth2-proxy', '--id', id, '--redirect-uri', `${at}/oauth2/callback`, '--post-logout-redirect-uri', `${at}/`, '--secret-out', file, ...registered);
      await start(id, E.OAUTH2_PROXY, ['--provider=oidc', `--oidc-issuer-url=${idp}`, `--client-id=${id}`, `--client-secret-file=${file}`, `--redirect-url=${at}/oauth2/callback`, `--http-address=127.0.0.1:${port}`,
        `--upstream=http://127.0.0.1:${page.address().port}`, '--email-domain=*', '--cookie-secure=false', '--cookie-secret=0123456789abcdef0123456789abcdef', '--cookie-refresh=1s', '--insecure-oidc-skip-nonce=false',
        '--scope=openid email profile groups offline_access', '--allowed-group=engineering', '--skip-provider-button=true', ...flags], port);
      const { html, cookie } = await browse(`${at}/`, 'http://127.0.0.1:9/', { user: 'erin', pass: password('erin') });
      const got = JSON.parse(html);
      must(got['x-forwarded-groups'] === 'engineering' && got['x-forwarded-email'] === 'erin@acme.example' && got['x-forwarded-preferred-username'] === 'erin', html);
      let refused = '';
      try { await browse(`${at}/`, 'http://127.0.0.1:9/', { user: 'max', pass: password('max') }); } catch (error) { refused = error.message; }
      must(refused.includes('HTTP 403'), `max: ${refused}`);
      // After a second, its session asks the company again.
      await new Promise(r => setTimeout(r, 2100));
      const again = await fetch(`${at}/`, { headers: { cookie: cookie(`${at}/`) } });
      must(again.status === 200 && again.headers.getSetCookie().some(text => text.startsWith('_oauth2_proxy=')), `no refresh: ${again.status}`);
      must(JSON.parse(admin('audit', '--limit', '5')).some(r => r.event === 'refresh_token' && r.client === id && r.outcome === 'granted'), 'no refresh on record');
    });
  }
  page.close();
  stop();
}

/** Keycloak; it takes most of a minute to start. */
async function keycloakRows(kit) {
  const { row, run, must, json, enrol, login, passavant, idp, admin, password, secret, freePort, here, scratch, fresh, E } = kit;
  const { start, stop } = starter(kit);
  const party = `Keycloak ${/keycloak-(\d[\w.]*)$/.exec(E.KEYCLOAK)?.[1] ?? ''}`.trim();
  const clientSecret = 'a-secret-of-the-foreign-client-0123456789', file = join(scratch, 'keycloak.secret');
  writeFileSync(file, clientSecret, { mode: 0o600 });
  const upstreamPort = await freePort(), upstream = `http://127.0.0.1:${upstreamPort}/mcp`;
  await start('everything', process.execPath, [join(here, 'node_modules/@modelcontextprotocol/server-everything/dist/index.js'), 'streamableHttp'], upstreamPort, { PORT: String(upstreamPort) });
  const sub = claims(fresh()).sub;
  let kc;
  /** A realm that trusts the company, as its guide for ID-JAGs says; erin, and a client with a secret. */
  async function realm(name) {
    await kc.api('POST', 'realms', { realm: name, enabled: true });
    await kc.api('POST', `realms/${name}/identity-provider/instances`, {
      alias: 'company', providerId: 'oidc', enabled: true,
      config: { issuer: idp, authorizationUrl: `${idp}/authorize`, tokenUrl: `${idp}/token`, jwksUrl: `${idp}/jwks`, useJwksUrl: 'true', clientId: 'receiver', clientSecret: 'unused', jwtAuthorizationGrantEnabled: 'true', jwtAuthorizationGrantAssertionReuseAllowed: 'false', jwtAuthorizationGrantMaxAllowedAssertionExpiration: '300' },
    });
    const client = {
      clientId: 'acme-agent', enabled: true, publicClient: false, serviceAccountsEnabled: true, secret: clientSecret,
      attributes: { 'oauth2.jwt.authorization.grant.enabled': 'true', 'oauth2.jwt.authorization.grant.idp': 'company' },
    };
    const id = await kc.api('POST', `realms/${name}/clients`, client);
    const erin = await kc.api('POST', `realms/${name}/users`, { username: 'erin', enabled: true, email: 'erin@acme.example', emailVerified: true, firstName: 'Erin', lastName: 'Engineer' });
    await kc.api('POST', `realms/${name}/users/${erin}/federated-identity/company`, { userId: sub, userName: 'erin' });
    const mapper = (protocolMapper, config, called = protocolMapper) => kc.api('POST', `realms/${name}/clients/${id}/protocol-mappers/models`, { name: called, protocol: 'openid-connect', protocolMapper, config: { 'access.token.claim': 'true', ...config } });
    /** Its client, with more or other settings. */
    const change = async more => {
      const now = await kc.api('GET', `realms/${name}/clients/${id}`);
      await kc.api('PUT', `realms/${name}/clients/${id}`, { ...now, ...more, attributes: { ...now.attributes, ...more.attributes } });
    };
    return { issuer: `${kc.at}/realms/${name}`, erin, mapper, change };
  }
  /** Our words for it: the server, its resource, and who may go there through which client. */
  function know(issuer, resource, name, ...more) {
    admin('server', 'add', issuer, '--name', name, ...more);
    admin('resource', 'add', resource, '--server', issuer, '--name', name, '--scopes', 'profile');
    for (const client of ['desk-agent', 'passavant']) admin('connection', 'add', `${client}-${name}`, '--client', client, '--audience', issuer, '--ras-client-id', 'acme-agent', '--resource', resource, '--scopes', 'profile', '--everyone');
  }
  // RFC 9068's type, its only audience, and client_id: three settings of the client there.
  const asRfc9068 = async (there, resource) => {
    await there.mapper('oidc-audience-mapper', { 'included.custom.audience': resource });
    await there.mapper('oidc-hardcoded-claim-mapper', { 'claim.name': 'client_id', 'claim.value': 'acme-agent', 'jsonType.label': 'String' });
    await there.change({ fullScopeAllowed: false, attributes: { 'access.token.header.type.rfc9068': 'true' } });
  };
  const use = (home, resource) => {
    must(passavant(home, 'tools', resource).includes('get-sum'), 'tools');
    must(passavant(home, 'call', resource, 'get-sum', '{"a":2,"b":3}').includes('5'), 'get-sum');
  };

  const agent = join(scratch, 'keycloak-agent');
  let es, rs, front;
  await row(party, 'its ID-JAG grant as RAS, ES256 and RS256: registered agent and enrolled installation; list, call at our gateway', async () => {
    kc = await keycloak({ folder: E.KEYCLOAK, port: await freePort(), features: 'identity-assertion-jwt,jwt-authorization-grant', log: join(scratch, 'keycloak.log') });
    [es, rs] = [await realm('es'), await realm('rs')];
    front = await gateway(kit, start, upstream, [['/es', es.issuer, 'algorithm = "RS256"'], ['/rs', rs.issuer, 'algorithm = "RS256"']]);
    for (const [there, name, ...more] of [[es, 'es'], [rs, 'rs', '--id-jag-algorithm', 'RS256']]) {
      await asRfc9068(there, `${front}/${name}`);
      know(there.issuer, `${front}/${name}`, name, ...more);
    }
    const done = await login('erin', agent, '--insecure-storage', '--ras-client', `${es.issuer}=acme-agent:${file}`, '--ras-client', `${rs.issuer}=acme-agent:${file}`);
    must(done.code === 0, done.out + done.err);
    use(agent, `${front}/es`);
    use(agent, `${front}/rs`);
    const home = join(scratch, 'keycloak-desk');
    await enrol('erin', home);
    passavant(home, 'secret', es.issuer, 'acme-agent', '--secret-file', file);
    use(home, `${front}/es`);
    return `issuer ${es.issuer}`;
  });

  await row(party, 'its access tokens at our gateway: as they are by default refused; in its own form, or in that of RFC 9068', async () => {
    must(es, 'there is no Keycloak');
    const there = await realm('forms');
    const door = await gateway(kit, start, upstream, [
      ['/strict', there.issuer, 'algorithm = "RS256"'],
      ['/own', there.issuer, 'algorithm = "RS256"\nseveral_audiences = true\nclient_in_azp = true'],
    ]);
    know(there.issuer, `${door}/strict`, 'forms');
    const token = async () => {
      const { id_jag } = json(run(process.execPath, [join(here, 'rp.mjs')], { ISSUER: idp, CLIENT_ID: 'desk-agent', CLIENT_SECRET: secret('idp'), LOGIN_USER: 'erin', LOGIN_PASS: password('erin'), SKIP: 'revoke,refresh,userinfo,introspect,logout', EXCHANGE: JSON.stringify({ audience: there.issuer, resource: `${door}/strict` }) }));
      const form = { grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', client_id: 'acme-agent', client_secret: clientSecret, assertion: id_jag };
      return (await (await fetch(`${there.issuer}/protocol/openid-connect/token`, { method: 'POST', body: new URLSearchParams(form) })).json()).access_token;
    };
    const seen = async () => { const its = await token(); return [await ask(`${door}/strict`, its), await ask(`${door}/own`, its)]; };
    const is = (what, [strict, own], wantedStrict, wantedOwn) => must(strict.startsWith(wantedStrict) && own.startsWith(wantedOwn), `${what}: ${strict}; ${own}`);
    is('by default', await seen(), '401 not an access token', '401 not an access token');
    await there.change({ attributes: { 'access.token.header.type.rfc9068': 'true' } });
    is('with its type', await seen(), '401', "401 the token's aud");
    for (const [i, path] of ['strict', 'own'].entries()) await there.mapper('oidc-audience-mapper', { 'included.custom.audience': `${door}/${path}` }, `aud ${i}`);
    is('with several audiences', await seen(), '401', '200');
    await there.mapper('oidc-hardcoded-claim-mapper', { 'claim.name': 'client_id', 'claim.value': 'acme-agent', 'jsonType.label': 'String' });
    is('with client_id', await seen(), "401 the token's aud", '200');
    return 'typ at+jwt has to be switched on there in any case';
  });

  // ---------- as relying party ----------
  await row(party, 'identity brokering: without PKCE refused, with it by secret, or by its key; RS256, groups, a new person, sign-out', async () => {
    must(es, 'there is no Keycloak');
    const at = `${kc.at}/realms/broker`, callback = 'http://127.0.0.1:9/callback', alias = 'company';
    await kc.api('POST', 'realms', { realm: 'broker', enabled: true });
    await kc.api('PUT', 'realms/broker/users/profile', { ...await kc.api('GET', 'realms/broker/users/profile'), unmanagedAttributePolicy: 'ENABLED' });
    await kc.api('POST', 'realms/broker/clients', { clientId: 'app', publicClient: true, enabled: true, redirectUris: [callback], attributes: { 'post.logout.redirect.uris': callback } });
    // Do the same as its console does with a discovery document.
    const imported = await kc.api('POST', 'realms/broker/identity-provider/import-config', { providerId: 'oidc', fromUrl: `${idp}/.well-known/openid-configuration` });
    const endpoint = `${at}/broker/${alias}/endpoint`, rpFile = join(scratch, 'keycloak-rp.secret');
    admin('client', 'add', 'Keycloak', '--id', 'keycloak', '--redirect-uri', endpoint, '--post-logout-redirect-uri', `${endpoint}/logout_response`, '--id-token-algorithm', 'RS256', '--secret-out', rpFile);
    admin('client', 'add', 'Keycloak by key', '--id', 'keycloak-key', '--redirect-uri', endpoint, '--jwks-uri', `${at}/protocol/openid-connect/certs`, '--algorithm', 'RS256', '--id-token-algorithm', 'RS256');
    const config = { ...imported, clientId: 'keycloak', clientSecret: readFileSync(rpFile, 'utf8').trim(), clientAuthMethod: 'client_secret_post', defaultScope: 'openid profile email groups', syncMode: 'FORCE' };
    await kc.api('POST', 'realms/broker/identity-provider/instances', { alias, providerId: 'oidc', enabled: true, trustEmail: true, config });
    await kc.api('POST', `realms/broker/identity-provider/instances/${alias}/mappers`, { name: 'groups', identityProviderAlias: alias, identityProviderMapper: 'oidc-user-attribute-idp-mapper', config: { claim: 'groups', 'user.attribute': 'company_groups', syncMode: 'FORCE' } });
    const set = async more => {
      const now = await kc.api('GET', `realms/broker/identity-provider/instances/${alias}`);
      await kc.api('PUT', `realms/broker/identity-provider/instances/${alias}`, { ...now, config: { ...now.config, clientSecret: config.clientSecret, ...more } });
    };
    const signIn = user => browse(`${at}/protocol/openid-connect/auth?${new URLSearchParams({ client_id: 'app', response_type: 'code', redirect_uri: callback, scope: 'openid', state: 's', kc_idp_hint: alias })}`, callback, { user, pass: password(user) });
    const there = async user => (await kc.api('GET', `realms/broker/users?username=${user}&exact=true&briefRepresentation=false`))[0];
    let refused = '';
    // Instead its own page appears and asks for a password.
    try { await signIn('erin'); } catch (error) { refused = error.message; }
    must(refused && !await there('erin') && kc.told().includes('PKCE+is+required'), `without PKCE: ${refused}`);
    admin('client', 'change', 'keycloak', '--pkce-optional');
    must((await signIn('erin')).url?.searchParams.get('code'), 'without PKCE, where that may be');
    admin('client', 'change', 'keycloak', '--pkce-optional', 'false');
    await set({ pkceEnabled: 'true', pkceMethod: 'S256', clientAuthMethod: 'client_secret_basic' });
    const back = await signIn('max');
    must(back.url?.searchParams.get('code'), 'with PKCE, by Basic');
    const max = await there('max');
    must(max.firstName === 'Max' && max.lastName === 'Marketer' && max.emailVerified && max.attributes.company_groups?.join() === 'marketing', JSON.stringify(max));
    // Signing out there continues to the company, which asks for confirmation.
    const answer = await fetch(`${at}/protocol/openid-connect/token`, { method: 'POST', body: new URLSearchParams({ grant_type: 'authorization_code', client_id: 'app', code: back.url.searchParams.get('code'), redirect_uri: callback }) });
    const out = `${at}/protocol/openid-connect/logout?${new URLSearchParams({ id_token_hint: (await answer.json()).id_token, post_logout_redirect_uri: callback })}`;
    const on = (await fetch(out, { redirect: 'manual', headers: { cookie: back.cookie(out) } })).headers.get('location');
    must(on?.startsWith(`${idp}/logout?`), on);
    const page = await fetch(on, { headers: { cookie: back.cookie(on) } });
    must(page.status === 200 && (await page.text()).includes('Sign out'), `the company's page: ${page.status}`);
    // By default it writes the token endpoint as `aud`.
    await set({ clientAuthMethod: 'private_key_jwt', clientAssertionSigningAlg: 'RS256', clientAssertionAudience: idp, clientId: 'keycloak-key' });
    must((await signIn('erin')).url?.searchParams.get('code'), 'by its key');
    const erin = await there('erin');
    must(erin.attributes.company_groups?.join() === 'engineering', JSON.stringify(erin));
  });
  kc?.stop();
  // Its answer to `resource` at this grant is always an error, and the presented ID-JAG is used up.
  await row(party, 'with resource-indicators as RAS: our client comes again without `resource`', async () => {
    kc = await keycloak({ folder: E.KEYCLOAK, port: await freePort(), features: 'identity-assertion-jwt,jwt-authorization-grant,resource-indicators', log: join(scratch, 'keycloak-resource.log') });
    const there = await realm('acme');
    const resource = `${await gateway(kit, start, upstream, [['/mcp', there.issuer, 'algorithm = "RS256"']])}/mcp`;
    await asRfc9068(there, resource);
    know(there.issuer, resource, 'Indicators');
    const home = join(scratch, 'keycloak-resource');
    await enrol('erin', home);
    passavant(home, 'secret', there.issuer, 'acme-agent', '--secret-file', file);
    use(home, resource);
  });
  kc?.stop();
  stop();
}
