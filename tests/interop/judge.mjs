// Judges an RFC 9068 access token of our RAS with oauth4webapi 3.8. Node >= 20.
// env: RAS_ISSUER ACCESS_TOKEN AUDIENCE(= MCP resource) [REQUEST_URL=AUDIENCE] [METHOD=POST] [SCOPES="a b" must all be in claims.scope]
//      [ALGS=ES256,EdDSA]   DPoP: DPOP_PRIVATE_JWK='{...}' (the key the token is bound to; a proof is made here) or DPOP_PROOF=<jwt>
import * as oauth from 'oauth4webapi';
const E = process.env, insecure = { [oauth.allowInsecureRequests]: true };
const b64 = s => JSON.parse(Buffer.from(s, 'base64url'));
const out = { ok: false };
try {
  const issuer = new URL(E.RAS_ISSUER);
  let as, tried = [];
  for (const algorithm of ['oauth2', 'oidc']) {     // oauth2: /.well-known/oauth-authorization-server{path}; oidc: {path}/.well-known/openid-configuration
    const res = await oauth.discoveryRequest(issuer, { algorithm, ...insecure });
    tried.push(`${res.url} ${res.status}`);
    if (res.status === 200) { as = await oauth.processDiscoveryResponse(issuer, res); break; }
  }
  if (!as) throw new Error('no metadata: ' + tried.join(', '));
  const at = E.ACCESS_TOKEN, [h, c] = at.split('.').slice(0, 2).map(b64);
  out.header = h; out.claims = c;
  const url = E.REQUEST_URL ?? E.AUDIENCE, method = E.METHOD ?? 'POST';
  const headers = new Headers({ authorization: `Bearer ${at}` });
  let requireDPoP = false, proof = E.DPOP_PROOF;
  if (E.DPOP_PRIVATE_JWK) {
    const jwk = JSON.parse(E.DPOP_PRIVATE_JWK);
    if (jwk.kty !== 'EC' || jwk.crv !== 'P-256') throw new Error('DPOP_PRIVATE_JWK: P-256 only');
    const key = await crypto.subtle.importKey('jwk', { kty: 'EC', crv: jwk.crv, x: jwk.x, y: jwk.y, d: jwk.d }, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']);
    const e = o => Buffer.from(JSON.stringify(o)).toString('base64url'), sha = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(at));
    const u = new URL(url); u.search = u.hash = '';
    const input = e({ typ: 'dpop+jwt', alg: 'ES256', jwk: { kty: 'EC', crv: jwk.crv, x: jwk.x, y: jwk.y } }) + '.' +
      e({ jti: crypto.randomUUID(), htm: method, htu: u.href, iat: Math.floor(Date.now() / 1000), ath: Buffer.from(sha).toString('base64url') });
    proof = input + '.' + Buffer.from(await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, key, new TextEncoder().encode(input))).toString('base64url');
  }
  if (proof) { requireDPoP = true; headers.set('authorization', `DPoP ${at}`); headers.set('dpop', proof); }
  const claims = await oauth.validateJwtAccessToken(as, new Request(url, { method, headers }), E.AUDIENCE, {
    requireDPoP, ...(E.ALGS ? { signingAlgorithms: E.ALGS.split(',') } : {}), [oauth.clockTolerance]: 5, ...insecure,
  });
  const missing = (E.SCOPES ?? '').split(' ').filter(s => s && !(claims.scope ?? '').split(' ').includes(s));
  if (missing.length) throw new Error('scope missing: ' + missing.join(' '));
  // beyond oauth4webapi, for our own stricter rules:
  out.notes = [typeof claims.aud !== 'string' && 'aud is an array', claims.exp - claims.iat > 3600 && 'lives over 1 h', !h.kid && 'no kid'].filter(Boolean);
  out.ok = true;
} catch (e) { out.error = { name: e.name, code: e.code, message: e.message, cause: e.cause?.claim ?? e.cause?.attribute ?? e.cause?.message }; }
console.log(JSON.stringify(out));
process.exit(out.ok ? 0 : 1);
