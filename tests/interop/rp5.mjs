// OIDC relying party over openid-client 5, whose default is an RS256 ID token.
// env: ISSUER CLIENT_ID CLIENT_SECRET LOGIN_USER LOGIN_PASS, PKCE=1, ALG (for the ID token, unless its default)
import { Issuer, generators } from 'openid-client5';
import { browse } from './browser.mjs';

const E = process.env, redirect_uri = 'http://127.0.0.1:8765/callback';
const issuer = await Issuer.discover(E.ISSUER);
const client = new issuer.Client({ client_id: E.CLIENT_ID, client_secret: E.CLIENT_SECRET, redirect_uris: [redirect_uri], response_types: ['code'], ...(E.ALG && { id_token_signed_response_alg: E.ALG }) });
const nonce = generators.nonce(), state = generators.state(), verifier = E.PKCE && generators.codeVerifier();
const start = client.authorizationUrl({ scope: 'openid email profile groups offline_access', state, nonce, ...(verifier && { code_challenge: generators.codeChallenge(verifier), code_challenge_method: 'S256' }) });
const { url } = await browse(start, redirect_uri, { user: E.LOGIN_USER, pass: E.LOGIN_PASS });
const tokens = await client.callback(redirect_uri, client.callbackParams(url.href), { state, nonce, ...(verifier && { code_verifier: verifier }) });
const info = await client.userinfo(tokens);
const again = await client.refresh(tokens);
const active = (await client.introspect(again.access_token)).active;
await client.revoke(again.refresh_token);
const ended = await client.refresh(again.refresh_token).then(() => 'it works', error => error.error);
console.log(JSON.stringify({ claims: tokens.claims(), info, same: again.claims().sub === tokens.claims().sub, active, ended, out: client.endSessionUrl({ id_token_hint: again.id_token }) }));
