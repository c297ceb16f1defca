// Cross-App Access end to end with @modelcontextprotocol/client 2.4.0. Node >= 20.
// env: IDP_ISSUER IDP_CLIENT_ID [IDP_CLIENT_SECRET] ID_TOKEN RAS_CLIENT_ID RAS_CLIENT_SECRET MCP_URL [TOOL] [TOOL_ARGS=json]
// optional: IDP_TOKEN_ENDPOINT (skip IdP discovery), RAS_ISSUER (expectedIssuer pin), PROTOCOL=legacy|auto|2026-07-28,
//           SCOPE (override exchange scope), ON_403=reauthorize|throw, TRACE=1 (one JSON line per HTTP request on stderr),
//           DPOP=1 (a DPoP session of the SDK).
// Under the conformance suite: MCP_CONFORMANCE_CONTEXT / _PROTOCOL_VERSION and argv's last element are used instead.
import {
  Client, StreamableHTTPClientTransport, CrossAppAccessProvider, DpopSession,
  discoverAndRequestJwtAuthGrant, requestJwtAuthorizationGrant,
} from '@modelcontextprotocol/client';

const E = process.env;
const ctx = E.MCP_CONFORMANCE_CONTEXT ? JSON.parse(E.MCP_CONFORMANCE_CONTEXT) : null;
const cfg = ctx ? {
  idp: ctx.idp_issuer, idpTok: ctx.idp_token_endpoint, idpId: ctx.idp_client_id, idToken: ctx.idp_id_token,
  rasId: ctx.client_id, rasSecret: ctx.client_secret, url: process.argv.at(-1),
  tool: 'test-tool', proto: E.MCP_CONFORMANCE_PROTOCOL_VERSION === '2026-07-28' ? '2026-07-28' : 'legacy',
} : {
  idp: E.IDP_ISSUER, idpTok: E.IDP_TOKEN_ENDPOINT, idpId: E.IDP_CLIENT_ID, idpSecret: E.IDP_CLIENT_SECRET || undefined,
  idToken: E.ID_TOKEN, rasId: E.RAS_CLIENT_ID, rasSecret: E.RAS_CLIENT_SECRET, rasIss: E.RAS_ISSUER || undefined,
  url: E.MCP_URL, tool: E.TOOL, args: E.TOOL_ARGS, proto: E.PROTOCOL || 'legacy', scope: E.SCOPE,
};
const need = ['idpId', 'idToken', 'rasId', 'rasSecret', 'url'].filter(k => !cfg[k]);
if (!cfg.idp && !cfg.idpTok) need.push('idp');
const out = o => process.stdout.write(JSON.stringify(o) + '\n');
if (need.length) { out({ ok: false, stage: 'config', missing: need }); process.exit(2); }

const requests = [];
const tracedFetch = async (url, init = {}) => {
  const h = Object.fromEntries(new Headers(init.headers).entries());
  const rec = { method: init.method ?? 'GET', url: String(url), headers: h, body: init.body == null ? undefined : String(init.body) };
  const res = await fetch(url, init);
  rec.status = res.status; rec.wwwAuthenticate = res.headers.get('www-authenticate') ?? undefined;
  requests.push({ method: rec.method, url: rec.url, status: rec.status });
  if (E.TRACE) process.stderr.write(JSON.stringify(rec) + '\n');
  return res;
};

const jags = [];
let stage = 'init', authStage;
const provider = new CrossAppAccessProvider({
  clientId: cfg.rasId, clientSecret: cfg.rasSecret,
  ...(cfg.rasIss ? { expectedIssuer: cfg.rasIss } : {}),   // omitted => one console.warn, no pinning
  fetchFn: tracedFetch,
  assertion: async c => {
    authStage = 'exchange';
    const common = {
      audience: c.authorizationServerUrl, resource: c.resourceUrl, idToken: cfg.idToken,
      clientId: cfg.idpId, clientSecret: cfg.idpSecret, scope: cfg.scope ?? c.scope, fetchFn: c.fetchFn,
    };
    const r = cfg.idpTok
      ? await requestJwtAuthorizationGrant({ tokenEndpoint: cfg.idpTok, ...common })
      : await discoverAndRequestJwtAuthGrant({ idpUrl: cfg.idp, ...common });
    jags.push({ audience: common.audience, resource: common.resource, scope: r.scope, expiresIn: r.expiresIn,
      claims: JSON.parse(Buffer.from(r.jwtAuthGrant.split('.')[1], 'base64url')) });
    authStage = 'redeem'; // stays 'redeem' after success: read it together with stage
    return r.jwtAuthGrant;
  },
});

if (E.DPOP) {
  const session = DpopSession.create();
  provider.dpop = () => session;
}
const transport = new StreamableHTTPClientTransport(new URL(cfg.url), {
  authProvider: provider, fetch: tracedFetch, onInsufficientScope: E.ON_403 || 'reauthorize', // maxStepUpRetries default 1
});
const client = new Client({ name: 'ts-xaa', version: '1.0.0' }, {
  versionNegotiation: { mode: /^\d{4}-/.test(cfg.proto) ? { pin: cfg.proto } : cfg.proto },
});
try {
  stage = 'connect';
  await client.connect(transport);
  stage = 'tools/list';
  const { tools } = await client.listTools();
  let result;
  if (cfg.tool) {
    stage = 'tools/call';
    result = await client.callTool({ name: cfg.tool, arguments: cfg.args ? JSON.parse(cfg.args) : {} });
    if (result.isError) throw Object.assign(new Error('tool returned isError'), { result });
  }
  stage = 'done';
  const t = provider.tokens();
  out({ ok: true, protocol: client.getNegotiatedProtocolVersion?.(), tools: tools.map(x => x.name), result, jags,
    token: { token_type: t.token_type, scope: t.scope, expires_in: t.expires_in, refresh: !!t.refresh_token, issuer: t.issuer }, requests });
  await client.close().catch(() => {});
  process.exit(0);
} catch (e) {
  out({ ok: false, stage, authStage, error: e.name, code: e.code, status: e.data?.status, message: e.message, cause: e.cause?.message, result: e.result, jags, requests });
  await client.close().catch(() => {});
  process.exit(1);
}
