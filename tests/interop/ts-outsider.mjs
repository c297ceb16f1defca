// An MCP client without cross-app access: @modelcontextprotocol/client with its ordinary OAuth,
// which registers itself, and a browser. env: MCP_URL LOGIN_USER LOGIN_PASS TOOL TOOL_ARGS
// [CLIENT_ID (registered manually)]
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client';
import { browse } from './browser.mjs';

const E = process.env, redirect = 'http://127.0.0.1:8765/callback';
const report = { ok: false, registered: false, pages: [] };
let information = E.CLIENT_ID ? { client_id: E.CLIENT_ID } : undefined, tokens, verifier, code;
const provider = {
  get redirectUrl() { return redirect; },
  get clientMetadata() {
    return { client_name: 'An ordinary agent', redirect_uris: [redirect], token_endpoint_auth_method: 'none', grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'] };
  },
  clientInformation: () => information,
  saveClientInformation: saved => { information = saved; report.registered = true; },
  tokens: () => tokens,
  saveTokens: saved => { tokens = saved; },
  saveCodeVerifier: saved => { verifier = saved; },
  codeVerifier: () => verifier,
  redirectToAuthorization: async url => {
    const end = await browse(url, redirect, { user: E.LOGIN_USER, pass: E.LOGIN_PASS, submit: 'answer=allow' });
    if (!end.url) throw new Error(`no way back: ${end.html?.slice(0, 400)}`);
    report.pages.push(...end.trail.map(step => `${step.method} ${new URL(step.url).origin}${new URL(step.url).pathname} ${step.status}`));
    code = end.url.searchParams;
  },
};
// What an application does after the library has sent its person to the browser: takes the code,
// and tries again.
const withPerson = async (transport, attempt) => {
  try {
    return await attempt(transport());
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
    await transport().finishAuth(code);
    return attempt(transport());
  }
};
const fresh = () => new StreamableHTTPClientTransport(new URL(E.MCP_URL), { authProvider: provider });
const { client, transport } = await withPerson(fresh, async transport => {
  const client = new Client({ name: 'ordinary', version: '1' });
  await client.connect(transport);
  return { client, transport };
});
const before = tokens.scope;
const answer = await withPerson(() => transport, () => client.callTool({ name: E.TOOL, arguments: JSON.parse(E.TOOL_ARGS ?? '{}') }));
Object.assign(report, { ok: true, answer, before, scope: tokens.scope, refresh: Boolean(tokens.refresh_token), client: information.client_id });
await client.close();
process.stdout.write(JSON.stringify(report) + '\n');
process.exit(0);
