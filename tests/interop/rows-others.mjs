// Texts of other parties, in every command that shows them: a company, an authorization server and
// an MCP server all of whose texts contain characters that a terminal would interpret. Each party
// answers correctly first, then fails in turn.
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';

// A colour, a new line that imitates ours, a direction mark, a line separator, a C1 control, a
// bell, a tag character.
const hostile = 'CANARY\u001b[31m\r\nFORGED\u202e\u2028\u009b31m\u0007\u{e0041}\u200b';
const obeyed = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e0fff}]/u;

export default async function rows({ row, must, scratch, E }) {
  await row('passavant', "others' texts are shown at every command, and obeyed at none (a hostile company, authorization server and MCP server)", async () => {
    const pair = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
    const { kty, crv, x, y } = await crypto.subtle.exportKey('jwk', pair.publicKey);
    const b64 = o => Buffer.from(typeof o === 'string' ? o : JSON.stringify(o)).toString('base64url');
    const jwt = async (typ, claims) => {
      const now = Math.floor(Date.now() / 1000), input = `${b64({ alg: 'ES256', typ, kid: 'k' })}.${b64({ iss: idp.url, iat: now, exp: now + 300, jti: crypto.randomUUID(), ...claims })}`;
      return `${input}.${Buffer.from(await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, pair.privateKey, Buffer.from(input))).toString('base64url')}`;
    };
    let broken = '';
    const servers = [];
    /** A server; where its step is broken it says so in hostile words. */
    const serve = async (name, answer) => {
      const server = createServer(async (request, response) => {
        const chunks = [];
        for await (const chunk of request) chunks.push(chunk);
        const url = new URL(request.url, `http://${request.headers.host}`);
        const send = (status, body, headers = {}) => {
          const text = typeof body === 'string' ? body : JSON.stringify(body);
          response.writeHead(status, { 'content-type': typeof body === 'string' ? 'text/html' : 'application/json', ...headers });
          response.end(text);
        };
        const [step, how] = broken.split(' ');
        if (step === `${name}${url.pathname}`) {
          if (how === 'html') return send(500, `<html><title>${hostile}</title>${hostile}`);
          if (how === 'text') return send(200, hostile);
          return send(how === '401' ? 401 : 400, { error: hostile, error_description: hostile, message: hostile, title: hostile }, how === '401' ? { 'www-authenticate': 'Bearer error="invalid_token", error_description="CANARY\u009b31m"' } : {});
        }
        await answer({ url, send, body: Buffer.concat(chunks).toString(), headers: request.headers, method: request.method });
      });
      await new Promise(r => server.listen(0, '127.0.0.1', r));
      servers.push(server);
      return { url: `http://127.0.0.1:${server.address().port}` };
    };
    let nonce;
    const idp = await serve('idp', async ({ url, send, body }) => {
      const form = new URLSearchParams(body);
      switch (url.pathname) {
        case '/.well-known/openid-configuration': case '/.well-known/oauth-authorization-server':
          return send(200, {
            issuer: idp.url, authorization_endpoint: `${idp.url}/authorize`, token_endpoint: `${idp.url}/token`, jwks_uri: `${idp.url}/jwks`, revocation_endpoint: `${idp.url}/revoke`,
            response_types_supported: ['code'], id_token_signing_alg_values_supported: ['ES256'], code_challenge_methods_supported: ['S256'], token_endpoint_auth_methods_supported: ['none'],
            identity_chaining_requested_token_types_supported: ['urn:ietf:params:oauth:token-type:id-jag'], scopes_supported: ['openid', 'offline_access', hostile],
            passavant_catalog_endpoint: `${idp.url}/catalog`, passavant_installations_endpoint: `${idp.url}/installations`,
          });
        case '/jwks': return send(200, { keys: [{ kty, crv, x, y, kid: 'k', alg: 'ES256', use: 'sig' }] });
        case '/authorize': {
          nonce = url.searchParams.get('nonce');
          const back = new URL(url.searchParams.get('redirect_uri'));
          back.search = new URLSearchParams({ code: 'c', state: url.searchParams.get('state'), iss: idp.url });
          return send(303, '', { location: back.href });
        }
        case '/token': {
          if (form.get('grant_type') === 'urn:ietf:params:oauth:grant-type:token-exchange') {
            const claims = { sub: 'u', aud: form.get('audience'), client_id: hostile, resource: form.get('resource'), scope: 'a' };
            return send(200, { issued_token_type: 'urn:ietf:params:oauth:token-type:id-jag', access_token: await jwt('oauth-id-jag+jwt', claims), token_type: 'N_A', expires_in: 300, scope: 'a' });
          }
          const claims = { sub: 'u', aud: 'c', auth_time: Math.floor(Date.now() / 1000), name: hostile, preferred_username: hostile, email: `${hostile}@x`, ...(nonce && { nonce }) };
          nonce = undefined;
          return send(200, { access_token: 'at', token_type: 'Bearer', expires_in: 300, refresh_token: 'rt', id_token: await jwt('JWT', claims), scope: 'openid' });
        }
        case '/catalog': {
          const server = { resource: `${mcp.url}/mcp`, name: hostile, vendor: hostile, authorization_server: ras.url, granted: true, scopes: hostile, ras_client_id: hostile };
          const refused = { ...server, resource: 'https://other.example/mcp', granted: false, reason: hostile, explanation: hostile };
          return send(200, { company: hostile, servers: [server, refused], native_clients: [{ software: hostile, client_id: hostile, servers: [server] }] });
        }
        case '/installations': return send(200, { installations: [{ id: hostile, device: hostile, enrolled_at: 1, used_at: 1 }] });
        default: return send(404, hostile);
      }
    });
    const ras = await serve('ras', ({ url, send }) => {
      switch (url.pathname) {
        case '/.well-known/oauth-authorization-server':
          return send(200, { issuer: ras.url, token_endpoint: `${ras.url}/token`, grant_types_supported: ['urn:ietf:params:oauth:grant-type:jwt-bearer'], authorization_grant_profiles_supported: ['urn:ietf:params:oauth:grant-profile:id-jag'], token_endpoint_auth_methods_supported: ['client_secret_basic', hostile], scopes_supported: [hostile] });
        case '/token': return send(200, { access_token: 'good', token_type: 'Bearer', expires_in: 300, scope: hostile });
        default: return send(404, hostile);
      }
    });
    const mcp = await serve('mcp', ({ url, send, body, headers, method }) => {
      if (url.pathname === '/.well-known/oauth-protected-resource/mcp') return send(200, { resource: `${mcp.url}/mcp`, authorization_servers: [ras.url], scopes_supported: ['a'], resource_name: hostile });
      if (url.pathname !== '/mcp') return send(404, hostile);
      if (headers.authorization !== 'Bearer good') return send(401, { error: hostile }, { 'www-authenticate': `Bearer resource_metadata="${mcp.url}/.well-known/oauth-protected-resource/mcp", error_description="CANARY\u009b31m"` });
      if (method !== 'POST') return send(405, hostile);
      const message = JSON.parse(body);
      const result = result => send(200, { jsonrpc: '2.0', id: message.id, result });
      const [step, how] = broken.split(' ');
      if (step === message.method) return send(200, { jsonrpc: '2.0', id: message.id, error: { code: -32000, message: hostile, data: how === 'data' ? hostile : undefined } });
      switch (message.method) {
        case 'initialize': return result({ protocolVersion: '2025-11-25', capabilities: { tools: {} }, serverInfo: { name: hostile, version: hostile, title: hostile }, instructions: hostile });
        case 'tools/list': return result({ tools: [{ name: hostile, title: hostile, description: hostile, inputSchema: { type: 'object' } }, { name: 'good', description: hostile, inputSchema: { type: 'object' } }] });
        case 'tools/call': return result({ isError: step === 'isError', content: [{ type: 'text', text: hostile }] });
        default: return message.id === undefined ? send(202, '') : send(200, { jsonrpc: '2.0', id: message.id, error: { code: -32601, message: hostile } });
      }
    });
    const secret = join(scratch, 'others.secret');
    writeFileSync(secret, 's', { mode: 0o600 });
    const home = join(scratch, 'others'), url = `${mcp.url}/mcp`;
    const start = (args, input) => new Promise(resolve => {
      const child = spawn(E.PASSAVANT, args, { env: { ...process.env, PASSAVANT_HOME: home, HOME: home, XDG_CONFIG_HOME: '', RUST_LOG: 'trace' } });
      let out = '', err = '';
      child.stdout.on('data', c => { out += c; });
      child.stderr.on('data', c => { err += c; });
      child.stdin.on('error', () => {});
      if (input === 'browser') {
        const look = setInterval(() => {
          const found = /http:\/\/127\S+code_challenge\S+/.exec(out);
          if (!found) return;
          clearInterval(look);
          fetch(found[0]).catch(() => {});
        }, 20);
        child.on('close', () => clearInterval(look));
      } else child.stdin.end(input ?? '');
      const late = setTimeout(() => child.kill('SIGKILL'), 20_000);
      child.on('close', code => { clearTimeout(late); resolve({ args, code, out, err }); });
    });
    let shown = 0, all = 0, fresh = 0;
    const judge = ({ args, code, out, err }, step) => {
      const lines = args[0] === 'call' || args[0] === 'connect' ? err : out + err;
      for (const [where, text] of [['standard output', args[0] === 'connect' ? '' : out], ['standard error', err]]) {
        const found = obeyed.exec(text);
        must(!found, `${args.join(' ')} (${step}): U+${found?.[0].codePointAt(0).toString(16)} on ${where}: ${JSON.stringify(text.slice(Math.max(0, (found?.index ?? 0) - 200), (found?.index ?? 0) + 50))}`);
      }
      must(!/^\s*FORGED/m.test(lines), `${args.join(' ')} (${step}): a line of theirs stands as one of ours:\n${lines}`);
      must(code !== null && code < 100, `${args.join(' ')} (${step}) ended with ${code}:\n${out}${err}`);
      all++;
      if (/CANARY/.test(out + err)) shown++;
    };
    try {
      const login = () => start(['login', '--no-browser', '--insecure-storage', '--issuer', idp.url, '--client-id', 'c', '--ras-client', `${ras.url}=c:${secret}`], 'browser');
      const first = await login();
      judge(first, 'login');
      must(first.code === 0 && first.out.includes('Signed in as'), first.out + first.err);
      const initialize = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}\n';
      const commands = [
        ['status'], ['servers'], ['servers', '--json'], ['installations'], ['tools', url], ['tools', url, '--json'], ['call', url, 'good', '{}'],
        ['doctor', url], ['doctor', url, '--json'], ['token', url], ['install', 'cursor', '--print', 'json'],
      ];
      for (const args of commands) judge(await start(args), 'well');
      judge(await start(['connect', url], initialize), 'well');
      judge(await start(['connect', '--all'], initialize), 'well');
      judge(await start(['inspect'], await jwt(hostile, { name: hostile, [hostile]: hostile, scope: hostile })), 'a token');
      const steps = ['idp/catalog', 'idp/installations', 'idp/token', 'idp/.well-known/openid-configuration', 'ras/token', 'ras/.well-known/oauth-authorization-server', 'mcp/.well-known/oauth-protected-resource/mcp', 'mcp/mcp']
        .flatMap(step => ['json', 'html', 'text', '401'].map(how => `${step} ${how}`)).concat(['initialize', 'tools/list', 'tools/call', 'tools/call data', 'isError']);
      const asking = [['servers'], ['installations'], ['tools', url], ['call', url, 'good', '{}'], ['doctor', url]];
      for (const step of steps) {
        broken = step;
        // Tokens from before must not hide the step.
        const held = step.startsWith('idp/token') || step.startsWith('ras/') ? [['token', url, '--scope', `a ${++fresh}`]] : [];
        const done = await Promise.all([...asking, ...held].map(args => start(args)));
        for (const one of done) judge(one, step);
        if (step === 'mcp/mcp html') judge(await start(['connect', url], initialize), step);
        broken = '';
      }
      broken = 'idp/token json';
      judge(await login(), 'a sign-in that fails');
      broken = '';
      must(shown > all / 3, `the texts were seen at ${shown} of ${all} commands alone: nothing was tried`);
      return `${all} commands, shown by ${shown}`;
    } finally {
      for (const server of servers) { server.close(); server.closeAllConnections(); }
    }
  });
}
