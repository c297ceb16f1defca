// Cloudflare's workers-oauth-provider in workerd, as RAS of an MCP server in the same worker.
// env: PORT IDP_ISSUER (https, or the library trusts nobody) CLIENT_FILE (the registered client is written there), ALGORITHMS.
// Says `ready ISSUER RESOURCE` on standard output. The worker fetches through this process, which trusts NODE_EXTRA_CA_CERTS.
import { writeFileSync } from 'node:fs';
import { buildSync } from 'esbuild';
import { Miniflare } from 'miniflare';

const E = process.env, at = `http://localhost:${E.PORT}`, resource = `${at}/mcp`;
const source = `
import { OAuthProvider } from '@cloudflare/workers-oauth-provider';
const tools = [{ name: 'who', description: 'Who calls', inputSchema: { type: 'object' } }];
const mcp = { async fetch(request, env, ctx) {
  if (request.method !== 'POST') return new Response(null, { status: 405 });
  const message = await request.json();
  if (message.id === undefined) return new Response(null, { status: 202 });
  const answer = result => Response.json({ jsonrpc: '2.0', id: message.id, result });
  if (message.method === 'initialize') return answer({ protocolVersion: message.params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: 'worker', version: '1' } });
  if (message.method === 'tools/list') return answer({ tools });
  if (message.method === 'tools/call') return answer({ content: [{ type: 'text', text: JSON.stringify({ ...ctx.props, scope: ctx.auth?.scope }) }] });
  return Response.json({ jsonrpc: '2.0', id: message.id, error: { code: -32601, message: 'no such method' } });
} };
const rest = { async fetch(request, env) {
  if (new URL(request.url).pathname !== '/register-agent') return new Response('nothing here', { status: 404 });
  return Response.json(await env.OAUTH_PROVIDER.createClient({ clientName: 'Acme', redirectUris: ['http://localhost/callback'], grantTypes: ['authorization_code', 'urn:ietf:params:oauth:grant-type:jwt-bearer'], tokenEndpointAuthMethod: 'client_secret_basic' }));
} };
export default new OAuthProvider({
  apiRoute: '/mcp', apiHandler: mcp, defaultHandler: rest, authorizeEndpoint: '/authorize', tokenEndpoint: '/token',
  resourceMetadata: { resource: '${resource}', scopes_supported: ['read'] }, scopesSupported: ['read'],
  onError: error => { console.error(JSON.stringify({ ...error, headers: undefined })); },
  enterpriseManagedAuthorization: {
    trustedIssuers: async ({ iss }) => iss === '${E.IDP_ISSUER}' ? { issuer: iss, jwksUri: '${E.IDP_ISSUER}/jwks', ${E.ALGORITHMS ? `algorithms: ${E.ALGORITHMS}` : ''} } : null,
    mapClaims: async ({ claims, requestedScope }) => ({ userId: claims.sub, scope: requestedScope, metadata: { issuer: claims.iss }, props: { subject: claims.sub, email: claims.email } }),
  },
});`;
const built = buildSync({ stdin: { contents: source, resolveDir: import.meta.dirname }, bundle: true, write: false, format: 'esm', conditions: ['workerd'], external: ['cloudflare:*', 'node:*'] });
const worker = new Miniflare({
  port: Number(E.PORT), host: '127.0.0.1', modules: true, script: built.outputFiles[0].text, compatibilityDate: '2026-07-01',
  kvNamespaces: ['OAUTH_KV'],
  outboundService: async request => { const answer = await fetch(request.url); return new Response(await answer.text(), { status: answer.status, headers: { 'content-type': answer.headers.get('content-type') ?? '' } }); },
});
await worker.ready;
writeFileSync(E.CLIENT_FILE, await (await fetch(`${at}/register-agent`)).text());
console.log(`ready ${at} ${resource}`);
process.on('SIGTERM', () => worker.dispose().then(() => process.exit(0)));
