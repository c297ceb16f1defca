// oidc-provider as a company's own identity provider: `node op.mjs FOLDER`. In the folder: settings.json (port, issuer,
// configuration), people.json (sub → username, password, claims, acr, amr), read at each sign-in and refresh; it keeps
// kept.json, so that what was issued outlives the process, and seen.jsonl, one line for each request with its parameters,
// and for each logout token that it sent (route `sent`).
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import Provider from 'oidc-provider';

const folder = process.argv[2], at = name => join(folder, name), read = name => JSON.parse(readFileSync(at(name)));
const { port, issuer, configuration, byScope } = read('settings.json');
const people = () => Object.entries(read('people.json')).map(([sub, person]) => ({ sub, ...person }));

const kept = existsSync(at('kept.json')) ? read('kept.json') : {};
const keep = () => writeFileSync(at('kept.json'), JSON.stringify(kept));
if (!kept.key) {
  const pair = await crypto.subtle.generateKey({ name: 'RSASSA-PKCS1-v1_5', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' }, true, ['sign']);
  const { key_ops, ext, ...key } = await crypto.subtle.exportKey('jwk', pair.privateKey);
  Object.assign(kept, { key: { ...key, use: 'sig', kid: 'rs' }, rows: {} });
  keep();
}
class Adapter {
  constructor(kind) { this.kind = kind; }
  name(id) { return `${this.kind} ${id}`; }
  of(test) { return Object.entries(kept.rows).find(([name, row]) => name.startsWith(`${this.kind} `) && test(row))?.[1]; }
  async upsert(id, payload) { kept.rows[this.name(id)] = payload; keep(); }
  async find(id) { return kept.rows[this.name(id)]; }
  async findByUid(uid) { return this.of(row => row.uid === uid); }
  async findByUserCode(code) { return this.of(row => row.userCode === code); }
  async consume(id) { kept.rows[this.name(id)].consumed = Math.floor(Date.now() / 1000); keep(); }
  async destroy(id) { delete kept.rows[this.name(id)]; keep(); }
  async revokeByGrantId(grant) {
    for (const [name, row] of Object.entries(kept.rows)) if (row.grantId === grant) delete kept.rows[name];
    keep();
  }
}

const provider = new Provider(issuer, {
  adapter: Adapter,
  jwks: { keys: [kept.key] },
  cookies: { keys: ['a key of the rows'] },
  // The ID token holds what it is asked for, as at most companies: by its defaults only /userinfo does.
  conformIdTokenClaims: false,
  claims: { openid: ['sub', 'acr', 'amr', 'auth_time'], profile: ['preferred_username', 'name', 'given_name', 'family_name'], email: ['email', 'email_verified'], groups: ['groups'] },
  scopes: ['openid', 'profile', 'email', 'groups', 'offline_access'],
  // Without `prompt=consent` it leaves out `offline_access` (OpenID Connect Core 11).
  ...(!byScope && { issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token') }),
  features: { devInteractions: { enabled: false } },
  // Its own dispatcher reaches no loopback addresses.
  async fetch(url, { dispatcher, ...options }) {
    const answer = await fetch(url, options), logout_token = options.body instanceof URLSearchParams && options.body.get('logout_token');
    if (logout_token) appendFileSync(at('seen.jsonl'), `${JSON.stringify({ route: 'sent', url: String(url), status: answer.status, logout_token })}\n`);
    return answer;
  },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  async findAccount(_, sub) {
    const person = people().find(held => held.sub === sub && !held.disabled);
    return person && { accountId: sub, claims: () => ({ sub, ...person.claims }) };
  },
  ...configuration,
});
provider.use(async (ctx, next) => {
  await next();
  const { client_assertion, client_secret, code, code_verifier, refresh_token, ...params } = ctx.oidc?.params ?? {};
  const part = i => JSON.parse(Buffer.from(client_assertion.split('.')[i], 'base64url'));
  const more = client_assertion && { assertion: { header: part(0), claims: part(1) } };
  const authorization = ctx.get('authorization').split(' ')[0] || undefined;
  appendFileSync(at('seen.jsonl'), `${JSON.stringify({ route: ctx.oidc?.route, status: ctx.status, error: ctx.body?.error, authorization, secret_in_form: client_secret !== undefined, ...more, params })}\n`);
});

for (const kind of ['grant.error', 'authorization.error', 'server_error']) provider.on(kind, (_, error) => console.error(kind, error));

/** The sign-in page, and the page that asks for consent, which agrees by itself. */
async function interaction(request, answer) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, answer);
  if (prompt.name === 'consent') {
    const grant = grantId ? await provider.Grant.find(grantId) : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope((prompt.details.missingOIDCScope ?? []).join(' '));
    return provider.interactionFinished(request, answer, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
  }
  let body = '';
  for await (const chunk of request) body += chunk;
  const form = new URLSearchParams(body);
  const person = people().find(held => held.username === form.get('username') && held.password === form.get('password') && !held.disabled);
  if (!person) {
    const action = new URL(request.url, issuer).href;
    return answer.writeHead(200, { 'content-type': 'text/html' }).end(`<form method="post" action="${action}"><input name="username"><input type="password" name="password"><button>Sign in</button></form>`);
  }
  const login = { accountId: person.sub, acr: person.acr, amr: person.amr };
  return provider.interactionFinished(request, answer, { login }, { mergeWithLastSubmission: false });
}
const own = provider.callback();
createServer((request, answer) => {
  // An administrator takes away what a person has here.
  if (request.url.startsWith('/revoke/')) {
    const sub = request.url.slice('/revoke/'.length), before = Object.keys(kept.rows).length;
    for (const [name, row] of Object.entries(kept.rows)) if (row.accountId === sub) delete kept.rows[name];
    keep();
    return answer.end(String(before - Object.keys(kept.rows).length));
  }
  if (!request.url.startsWith('/interaction/')) return own(request, answer);
  interaction(request, answer).catch(error => answer.writeHead(400).end(String(error.message)));
}).listen(port, '127.0.0.1');
