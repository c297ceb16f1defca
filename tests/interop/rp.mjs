// OIDC relying party over openid-client 6.8; logs in by plain fetch. Node >= 20.
// env: ISSUER CLIENT_ID [CLIENT_SECRET] LOGIN_USER LOGIN_PASS
//  AUTH=client_secret_basic|client_secret_post|private_key_jwt|none   PRIVATE_JWK='{"kty":..,"d":..,"kid":..}' (for private_key_jwt)
//  REDIRECT_URI (default http://127.0.0.1:8765/callback; nothing listens there)   SCOPE (default "openid profile email offline_access")
//  PAR=1 (use pushed authorization request)   EXTRA='{"prompt":"consent"}' (more authorization params)
//  SKIP=userinfo,refresh,introspect,revoke,logout   POST_LOGOUT=url   EXCHANGE='{"audience":"..","resource":"..","scope":".."}' (ID-JAG)
//  SUBMIT='name=value' (extra/override form field, e.g. a consent button)   TRACE=1
import * as oidc from 'openid-client';
import { browse } from './browser.mjs';

const E = process.env, skip = new Set((E.SKIP ?? '').split(',').filter(Boolean));
const redirectUri = E.REDIRECT_URI ?? 'http://127.0.0.1:8765/callback';
const log = o => E.TRACE && process.stderr.write(JSON.stringify(o) + '\n');
const report = { ok: false, steps: {} };
let step = 'start';

// ---------- the relying party ----------
async function clientAuth() {
  switch (E.AUTH ?? (E.CLIENT_SECRET ? 'client_secret_basic' : 'none')) {
    case 'client_secret_basic': return oidc.ClientSecretBasic(E.CLIENT_SECRET);
    case 'client_secret_post': return oidc.ClientSecretPost(E.CLIENT_SECRET);
    case 'none': return oidc.None();
    case 'private_key_jwt': {
      const jwk = JSON.parse(E.PRIVATE_JWK);
      const alg = jwk.kty === 'EC' ? { name: 'ECDSA', namedCurve: jwk.crv } : jwk.kty === 'OKP' ? { name: 'Ed25519' }
        : { name: jwk.alg?.startsWith('PS') ? 'RSA-PSS' : 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
      const { alg: _a, use: _u, key_ops: _k, ...bare } = jwk;
      const key = await crypto.subtle.importKey('jwk', bare, alg, false, ['sign']);
      return oidc.PrivateKeyJwt({ key, kid: jwk.kid });   // aud = issuer, exp = 60 s
    }
  }
  throw new Error('unknown AUTH');
}
try {
  step = 'discovery';
  const config = await oidc.discovery(new URL(E.ISSUER), E.CLIENT_ID, {}, await clientAuth(), {
    execute: [oidc.allowInsecureRequests, oidc.enableNonRepudiationChecks], // the latter verifies ID token signatures with the JWKS
  });
  const md = config.serverMetadata();
  report.steps.discovery = { issuer: md.issuer, authMethods: md.token_endpoint_auth_methods_supported, iss: md.authorization_response_iss_parameter_supported, par: md.pushed_authorization_request_endpoint };

  step = 'authorize';
  const verifier = oidc.randomPKCECodeVerifier(), state = oidc.randomState(), nonce = oidc.randomNonce();
  const params = {
    redirect_uri: redirectUri, scope: E.SCOPE ?? 'openid profile email offline_access', state, nonce,
    code_challenge: await oidc.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256', ...JSON.parse(E.EXTRA ?? '{}'),
  };
  const authUrl = E.PAR ? await oidc.buildAuthorizationUrlWithPAR(config, params) : oidc.buildAuthorizationUrl(config, params);
  report.steps.authorizationUrl = authUrl.href;
  const { url: callback, trail, html } = await browse(authUrl, redirectUri, { user: E.LOGIN_USER, pass: E.LOGIN_PASS, submit: E.SUBMIT, log });
  report.steps.login = trail.map(t => `${t.method} ${t.status} ${new URL(t.url).pathname}`);
  if (!callback) throw new Error('login ended on a page without form: ' + html.slice(0, 300));
  report.steps.callback = [...callback.searchParams.keys()];

  step = 'code';
  const tok = await oidc.authorizationCodeGrant(config, callback, { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true });
  const claims = tok.claims();
  report.steps.tokens = { token_type: tok.token_type, scope: tok.scope, expires_in: tok.expires_in, refresh: !!tok.refresh_token,
    idTokenHeader: JSON.parse(Buffer.from(tok.id_token.split('.')[0], 'base64url')) };
  report.steps.claims = claims;
  report.id_token = tok.id_token;

  if (!skip.has('userinfo')) { step = 'userinfo'; report.steps.userinfo = await oidc.fetchUserInfo(config, tok.access_token, claims.sub); }

  let cur = tok;
  if (!skip.has('refresh')) {
    step = 'refresh';
    if (!tok.refresh_token) throw new Error('no refresh token');
    cur = await oidc.refreshTokenGrant(config, tok.refresh_token);
    const c2 = cur.claims();
    report.steps.refresh = { rotated: !!cur.refresh_token && cur.refresh_token !== tok.refresh_token, id_token: !!cur.id_token, scope: cur.scope,
      sameSub: c2 ? c2.sub === claims.sub : undefined, sameAuthTime: c2 ? c2.auth_time === claims.auth_time : undefined };
    if (cur.id_token) report.id_token = cur.id_token;
  }
  if (E.EXCHANGE) {
    step = 'exchange';
    const x = await oidc.genericGrantRequest(config, 'urn:ietf:params:oauth:grant-type:token-exchange', {
      requested_token_type: 'urn:ietf:params:oauth:token-type:id-jag', subject_token: report.id_token,
      subject_token_type: 'urn:ietf:params:oauth:token-type:id_token', ...JSON.parse(E.EXCHANGE) });
    report.steps.exchange = { token_type: x.token_type, issued_token_type: x.issued_token_type, expires_in: x.expires_in, scope: x.scope,
      header: JSON.parse(Buffer.from(x.access_token.split('.')[0], 'base64url')), claims: JSON.parse(Buffer.from(x.access_token.split('.')[1], 'base64url')) };
    report.id_jag = x.access_token;
  }
  if (!skip.has('introspect')) { step = 'introspect'; report.steps.introspect = await oidc.tokenIntrospection(config, cur.access_token, { token_type_hint: 'access_token' }); }
  if (!skip.has('revoke')) {
    step = 'revoke';
    const rt = cur.refresh_token ?? tok.refresh_token;
    await oidc.tokenRevocation(config, rt ?? cur.access_token, { token_type_hint: rt ? 'refresh_token' : 'access_token' });
    report.steps.revoke = { done: true };
    if (rt) report.steps.revoke.refreshAfterwards = await oidc.refreshTokenGrant(config, rt).then(() => 'STILL WORKS', e => e.error ?? e.code ?? e.message);
    if (!skip.has('introspect')) report.steps.revoke.activeAfterwards = (await oidc.tokenIntrospection(config, cur.access_token)).active;
  }
  if (!skip.has('logout')) {
    step = 'logout';
    report.steps.endSessionUrl = oidc.buildEndSessionUrl(config, { id_token_hint: cur.id_token ?? tok.id_token, state: 'bye', ...(E.POST_LOGOUT ? { post_logout_redirect_uri: E.POST_LOGOUT } : {}) }).href;
  }
  report.ok = true; step = 'done';
} catch (e) {
  report.failedAt = step;
  report.error = { name: e.name, code: e.code, message: e.message, error: e.error, error_description: e.error_description, status: e.status,
    cause: e.cause instanceof Error ? e.cause.message : e.cause?.body ?? (e.cause instanceof Response ? `HTTP ${e.cause.status} ${e.cause.headers.get('content-type')}` : undefined) };
}
console.log(JSON.stringify(report, null, E.PRETTY ? 2 : 0));
process.exit(report.ok ? 0 : 1);
