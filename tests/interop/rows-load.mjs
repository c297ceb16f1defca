// Only in long runs: many sign-ins together with many grants, and the memory in use afterwards.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { browse } from './browser.mjs';

export default async function rows({ row, run, must, startDemo, E }) {
  if (!E.LONG_HOSTS) return console.log('skipped load                             ./test --long runs it');
  await row('passavant demo', '64 workers of mixed grants beside 500 sign-ins of 60 people, ten at a time: nothing fails but by a limit that says so, within 256 MiB', async () => {
    const company = await startDemo();
    const { idp, notes } = company, redirect_uri = 'http://127.0.0.1:8765/callback', password = 'a passphrase of many words';
    for (let i = 0; i < 60; i++) run(E.PASSAVANT, ['admin', '--url', `http://127.0.0.1:${company.port + 5}`, '--secret-file', join(company.folder, 'admin.secret'), 'user', 'add', `p${i}`], {}, `${password}\n`);
    const basic = (id, secret) => ({ authorization: 'Basic ' + btoa(`${id}:${secret}`), 'content-type': 'application/x-www-form-urlencoded' });
    const atIdp = basic('desk-agent', company.secret('idp')), atRas = basic('acme-notes', company.secret('notes'));
    const seen = {}, count = (what, status) => { const key = `${what} ${status}`; seen[key] = (seen[key] ?? 0) + 1; };
    const post = async (what, url, headers, form) => {
      const answer = await fetch(url, { method: 'POST', headers, body: String(new URLSearchParams(form)) }).catch(error => { throw new Error(`${what}: ${error.message}: ${error.cause?.code ?? error.cause}`); });
      const body = await answer.json();
      count(what, answer.status);
      must(answer.status === 200 || (answer.status === 429 && answer.headers.has('retry-after')), `${what}: ${answer.status} ${JSON.stringify(body)}`);
      return body;
    };
    const signIn = async (user, pass) => {
      const challenge = 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM', code_verifier = 'dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk';
      const query = new URLSearchParams({ response_type: 'code', client_id: 'desk-agent', redirect_uri, scope: 'openid offline_access', state: 's', code_challenge: challenge, code_challenge_method: 'S256' });
      const { url } = await browse(`${idp}/authorize?${query}`, redirect_uri, { user, pass });
      return post('code', `${idp}/token`, atIdp, { grant_type: 'authorization_code', code: url.searchParams.get('code'), redirect_uri, code_verifier });
    };
    const memory = name => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(readFileSync(`/proc/${company.pid}/status`, 'utf8'))[1]) / 1024;
    const before = memory('VmRSS'), erin = await signIn('erin', company.password('erin'));
    let busy = true;
    const worker = async () => {
      while (busy) {
        const grant = await post('exchange', `${idp}/token`, atIdp, {
          grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange', subject_token: erin.id_token, subject_token_type: 'urn:ietf:params:oauth:token-type:id_token',
          requested_token_type: 'urn:ietf:params:oauth:token-type:id-jag', audience: notes.ras, resource: notes.mcp,
        });
        if (grant.access_token) {
          const token = await post('redemption', `${notes.ras}/token`, atRas, { grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion: grant.access_token });
          if (token.access_token) await post('introspection', `${notes.ras}/introspect`, atRas, { token: token.access_token });
        }
        count('metadata', (await fetch(`${idp}/.well-known/openid-configuration`).then(async answer => (await answer.arrayBuffer(), answer))).status);
      }
    };
    const workers = Array.from({ length: 64 }, worker);
    let next = 0;
    const people = async () => {
      for (let i = next++; i < 500; i = next++) {
        must((await signIn(`p${i % 60}`, password)).id_token, `sign-in ${i}`);
        count('sign-in', 200);
      }
    };
    try { await Promise.all(Array.from({ length: 10 }, people)); } finally { busy = false; }
    await Promise.all(workers);
    must(seen['sign-in 200'] === 500 && Object.keys(seen).every(key => /(200|429)$/.test(key)), JSON.stringify(seen));
    must(memory('VmHWM') < 256, `${memory('VmHWM')} MiB at the most`);
    return `${JSON.stringify(seen)}; ${before.toFixed(0)} MiB before, ${memory('VmRSS').toFixed(0)} after, ${memory('VmHWM').toFixed(0)} at the most`;
  });
}
