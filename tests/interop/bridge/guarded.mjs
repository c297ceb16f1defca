// Stands before any MCP server and takes only access tokens of one authorization server: protected
// resource metadata, challenges, and requests and answers streamed through as they are. Node >= 20.
// env: PORT UPSTREAM(=http://127.0.0.1:3001/mcp) RAS_ISSUER SCOPES("a b", all needed). Resource: http://localhost:PORT + UPSTREAM's path.
import { createServer, request as send } from 'node:http';
import { pathToFileURL } from 'node:url';
import * as oauth from 'oauth4webapi';

/** The headers of a message but those of its connection, as they were sent. */
function kept({ rawHeaders }, ...without) {
  const gone = ['connection', 'keep-alive', 'transfer-encoding', ...without];
  return rawHeaders.flatMap((name, i) => i % 2 || gone.includes(name.toLowerCase()) ? [] : [[name, rawHeaders[i + 1]]]);
}
const insecure = { [oauth.allowInsecureRequests]: true };

export async function guard({ port, upstream, issuer, scopes = '' }) {
  const up = new URL(upstream), resource = `http://localhost:${port}${up.pathname}`;
  const wellKnown = `/.well-known/oauth-protected-resource${up.pathname}`;
  const needed = scopes.split(' ').filter(Boolean);
  const ras = new URL(issuer);
  const as = await oauth.processDiscoveryResponse(ras, await oauth.discoveryRequest(ras, { algorithm: 'oauth2', ...insecure }));
  const metadata = { resource, authorization_servers: [issuer], scopes_supported: needed, bearer_methods_supported: ['header'] };

  /** Undefined for a good token, otherwise status and error. */
  async function refusal(question) {
    if (!question.headers.authorization) return [401];
    const seen = new Request(resource, { method: question.method, headers: { authorization: question.headers.authorization } });
    try {
      const claims = await oauth.validateJwtAccessToken(as, seen, resource, insecure);
      const held = (claims.scope ?? '').split(' ');
      if (!needed.every(scope => held.includes(scope))) return [403, 'insufficient_scope'];
    } catch (error) {
      return [401, 'invalid_token', error.message];
    }
  }
  const server = createServer(async (question, answer) => {
    if (question.url === wellKnown) return answer.setHeader('content-type', 'application/json').end(JSON.stringify(metadata));
    const refused = await refusal(question);
    if (refused) {
      const [status, error, why] = refused;
      const told = Object.entries({ error, error_description: why?.replace(/["\\]/g, "'"), resource_metadata: `http://localhost:${port}${wellKnown}`, scope: scopes });
      answer.writeHead(status, { 'www-authenticate': 'Bearer ' + told.filter(([, v]) => v).map(([k, v]) => `${k}="${v}"`).join(', ') });
      return answer.end();
    }
    const passed = send({ host: up.hostname, port: up.port, path: question.url, method: question.method, agent: false });
    for (const [name, value] of kept(question, 'host', 'authorization')) passed.appendHeader(name, value);
    // If one side closes, the other one is closed, too.
    answer.on('close', () => passed.destroy());
    passed.on('error', () => answer.headersSent ? answer.destroy() : answer.writeHead(502).end());
    passed.on('response', told => {
      answer.writeHead(told.statusCode, told.statusMessage, kept(told).flat());
      answer.flushHeaders();
      told.on('error', () => answer.destroy());
      told.pipe(answer);
    });
    question.pipe(passed);
  });
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
  return { server, resource };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { PORT, UPSTREAM, RAS_ISSUER, SCOPES } = process.env;
  const { resource } = await guard({ port: Number(PORT), upstream: UPSTREAM, issuer: RAS_ISSUER, scopes: SCOPES });
  console.log(`guarded: ${resource}`);
}
