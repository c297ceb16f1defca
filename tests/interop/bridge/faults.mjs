// `passavant connect` in front of MCP servers that misbehave. A scripted server behind guarded.mjs; the bridge
// is spoken to in lines. Prints a row for each try. Node >= 20.
// env: PASSAVANT PASSAVANT_HOME(signed in) PORT(http://localhost:PORT/mcp, known to the company) RAS_ISSUER SCOPES [FAULT=word in the row]
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { guard } from './guarded.mjs';

const { PASSAVANT, PORT, RAS_ISSUER, SCOPES, FAULT } = process.env;
const wait = ms => new Promise(r => setTimeout(r, ms));
const must = (condition, text) => { if (!condition) throw new Error(text); };
const show = value => String(JSON.stringify(value)).slice(0, 700);
const same = (a, b, what) => must(JSON.stringify(a) === JSON.stringify(b), `${what}: ${show(a)}, not ${show(b)}`);

// ---------- the scripted server ----------
/** What came: method, headers, text, message, and when it was closed from the other side. */
let came = [], script;
const upstream = createServer((request, answer) => {
  let text = '';
  request.setEncoding('utf8').on('data', chunk => { text += chunk; }).on('end', () => {
    const seen = { method: request.method, headers: request.headers, raw: request.rawHeaders, text, at: Date.now() };
    try { seen.message = JSON.parse(text); } catch {}
    answer.on('close', () => { if (!answer.writableFinished) seen.closed = Date.now(); });
    came.push(seen);
    script(seen, answer);
  });
}).listen(0, '127.0.0.1');
await new Promise(r => upstream.once('listening', r));
const front = await guard({ port: Number(PORT), upstream: `http://127.0.0.1:${upstream.address().port}/mcp`, issuer: RAS_ISSUER, scopes: SCOPES });

const reply = (answer, body, status = 200, headers = {}) =>
  answer.writeHead(status, { 'content-type': 'application/json', ...headers }).end(typeof body === 'string' ? body : JSON.stringify(body));
const result = (id, result = {}) => ({ jsonrpc: '2.0', id, result });
const events = answer => answer.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
const event = (message, id) => `${id ? `id: ${id}\n` : ''}data: ${message && JSON.stringify(message)}\n\n`;
/** A server with sessions; what is not about the session goes to `more`. */
function sessions(more = () => false) {
  let count = 0;
  return (seen, answer) => {
    if (more(seen, answer) !== false) return;
    if (seen.method === 'GET') return events(answer);
    if (seen.method === 'DELETE') return answer.writeHead(204).end();
    if (seen.message.method === 'initialize')
      return reply(answer, result(seen.message.id, { protocolVersion: '2025-06-18', capabilities: {}, serverInfo: { name: 's', version: '1' } }), 200, { 'mcp-session-id': `session-${++count}` });
    if (seen.message.id === undefined || !seen.message.method) return answer.writeHead(202).end();
    reply(answer, result(seen.message.id, { echo: seen.message.method }));
  };
}
const calls = method => came.filter(seen => seen.message?.method === method);

// ---------- the bridge ----------
const running = new Set();
class Bridge {
  lines = []; bad = []; err = '';
  constructor(...more) {
    this.started = Date.now();
    this.child = spawn(PASSAVANT, ['connect', front.resource, ...more], { stdio: 'pipe' });
    running.add(this);
    let rest = '';
    this.child.stdout.setEncoding('utf8').on('data', chunk => {
      const parts = (rest + chunk).split('\n');
      rest = parts.pop();
      for (const text of parts) try { this.lines.push({ text, at: Date.now(), ...JSON.parse(text) }); } catch { this.bad.push(text); }
    });
    this.child.stderr.on('data', chunk => { this.err += chunk; });
    this.child.stdin.on('error', () => {});
    this.ended = new Promise(resolve => this.child.on('close', (code, signal) => { running.delete(this); resolve({ code, signal, at: Date.now(), rest }); }));
  }
  say(...messages) { this.child.stdin.write(messages.map(m => (typeof m === 'string' ? m : JSON.stringify({ jsonrpc: '2.0', ...m })) + '\n').join('')); return this; }
  async line(fits, ms = 8000) {
    for (const end = Date.now() + ms; Date.now() < end; await wait(5)) {
      const found = this.lines.find(fits);
      if (found) return found;
    }
    throw new Error(`no such line in ${ms} ms; lines ${show(this.lines.map(l => l.text))}, stderr ${this.err}`);
  }
  answer(id, ms) { return this.line(l => l.id === id && !l.method, ms); }
  answers(id) { return this.lines.filter(l => l.id === id && !l.method); }
  async begin() {
    this.say({ id: 'i', method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'c', version: '1' } } });
    await this.answer('i');
    this.say({ method: 'notifications/initialized' });
    for (let i = 0; i < 400 && !calls('notifications/initialized').length; i++) await wait(5);
    return this;
  }
  /** Ends the input; how long it takes to end. */
  async end(ms = 15000) {
    const from = Date.now();
    this.child.stdin.end();
    const done = await Promise.race([this.ended, wait(ms)]);
    must(done, `still running ${ms} ms after the end of input`);
    must(done.code === 0, `exit code ${done.code}`);
    return done.at - from;
  }
}
const meta = { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} };
const modern = (id, method, params = {}) => ({ id, method, params: { ...params, _meta: meta } });
const cancelled = (requestId, more = {}) => ({ method: 'notifications/cancelled', params: { requestId, ...more } });

let passed = 0, failed = 0;
async function row(what, work) {
  if (FAULT && !what.includes(FAULT)) return;
  came = [];
  const from = Date.now();
  try {
    const told = await work();
    for (const bridge of [...running]) if (!bridge.child.stdin.writableEnded) await bridge.end();
    passed++;
    console.log(`ok      ${what}${told ? ` — ${told}` : ''} (${Date.now() - from} ms)`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${what}\n        ${error.message}`);
  }
  for (const bridge of running) bridge.child.kill('SIGKILL');
  upstream.closeAllConnections();
}
/** The one answer to a request, after everything has come to rest. */
async function only(bridge, id, rest = 300) {
  const found = await bridge.answer(id);
  await wait(rest);
  must(bridge.answers(id).length === 1, `answers to ${id}: ${show(bridge.answers(id).map(l => l.text))}`);
  must(bridge.bad.length === 0, `not JSON: ${show(bridge.bad)}`);
  return found;
}

// ---------- sessions ----------
await row('session: id and revision on all that follows, its stream, and DELETE at the end', async () => {
  let stream;
  script = sessions((seen, answer) => seen.method === 'GET' ? (events(answer), stream = answer) : false);
  const bridge = await new Bridge().begin();
  bridge.say({ id: 1, method: 'ping' });
  same((await only(bridge, 1)).result, { echo: 'ping' }, 'ping');
  for (let i = 0; !stream && i < 100; i++) await new Promise(r => setTimeout(r, 20));
  stream.write(event({ jsonrpc: '2.0', method: 'notifications/tools/list_changed' }));
  await bridge.line(l => l.method === 'notifications/tools/list_changed');
  const took = await bridge.end();
  // Its stream is opened beside what is said next.
  const saw = came.map(seen => [seen.message?.method ?? seen.method, seen.headers['mcp-session-id'], seen.headers['mcp-protocol-version']]), streams = saw.filter(([what]) => what === 'GET');
  same(streams, [['GET', 'session-1', '2025-06-18']], 'its stream');
  same(saw.filter(([what]) => what !== 'GET'), [
    ['initialize', undefined, undefined], ['notifications/initialized', 'session-1', '2025-06-18'],
    ['ping', 'session-1', '2025-06-18'], ['DELETE', 'session-1', '2025-06-18']], 'what the server saw');
  must(took < 500, `it took ${took} ms to end`);
  return `ended in ${took} ms`;
});
await row('session: all in one write is kept in order', async () => {
  script = sessions((seen, answer) => {
    if (['initialize', 'notifications/initialized'].includes(seen.message?.method) && !seen.late) {
      seen.late = true;
      setTimeout(() => script(seen, answer), 200);
    } else return false;
  });
  const bridge = new Bridge().say({ id: 0, method: 'initialize', params: { protocolVersion: '2025-11-25' } }, { method: 'notifications/initialized' }, { id: 1, method: 'tools/list' });
  await only(bridge, 1);
  const at = name => calls(name)[0].at;
  must(at('notifications/initialized') - at('initialize') >= 190 && at('tools/list') - at('notifications/initialized') >= 190, 'it did not wait for the server');
});
await row('session forgotten: three calls at once, one new session, one answer each', async () => {
  let forgotten = false;
  script = sessions((seen, answer) => {
    if (seen.method === 'POST' && forgotten && seen.headers['mcp-session-id'] === 'session-1') reply(answer, { jsonrpc: '2.0', id: null, error: { code: -32600, message: 'Session not found' } }, 404);
    else return false;
  });
  const bridge = await new Bridge().begin();
  forgotten = true;
  bridge.say({ id: 1, method: 'a' }, { id: 2, method: 'b' }, { id: 3, method: 'c' });
  for (const [id, method] of [[1, 'a'], [2, 'b'], [3, 'c']]) same((await only(bridge, id)).result, { echo: method }, method);
  same(calls('initialize').length, 2, 'initializations');
  same(calls('initialize')[1].message.params, calls('initialize')[0].message.params, 'the second initialize');
  same(calls('initialize')[1].headers['mcp-session-id'], undefined, 'session of the second initialize');
  same(calls('notifications/initialized').length, 2, 'notifications/initialized');
  same(bridge.lines.filter(l => l.id !== undefined && !l.method).length, 4, 'answers');
  const took = await bridge.end();
  same(came.at(-1).headers['mcp-session-id'], 'session-2', 'session at DELETE');
  return `ended in ${took} ms`;
});
await row('session forgotten by a server that is still starting: the next call heals it', async () => {
  let forgotten = false, starting = true;
  script = sessions((seen, answer) => {
    if (!forgotten || seen.method !== 'POST') return false;
    if (seen.message.method === 'initialize' && starting) return starting = false, answer.writeHead(503).end();
    if (seen.message.method !== 'initialize' && seen.headers['mcp-session-id'] !== 'session-2') reply(answer, { jsonrpc: '2.0', id: null, error: { code: -32600, message: 'Session not found' } }, seen.headers['mcp-session-id'] ? 404 : 400);
    else return false;
  });
  const bridge = await new Bridge().begin();
  forgotten = true;
  bridge.say({ id: 1, method: 'a' });
  must((await only(bridge, 1)).error, 'no error');
  bridge.say({ id: 2, method: 'b' });
  same((await only(bridge, 2)).result, { echo: 'b' }, 'answer');
});
await row('session forgotten: 404 of a method that does not exist is no reason', async () => {
  script = sessions((seen, answer) => seen.message?.method === 'x' ? reply(answer, { jsonrpc: '2.0', id: 1, error: { code: -32601, message: 'no x' } }, 404) : false);
  const bridge = await new Bridge().begin();
  bridge.say({ id: 1, method: 'x' });
  same((await only(bridge, 1)).error, { code: -32601, message: 'no x' }, 'error');
  same(calls('initialize').length, 1, 'initializations');
});
await row('stream broken after an event id: taken up with Last-Event-ID', async () => {
  script = sessions((seen, answer) => {
    if (seen.message?.method === 'slow') { events(answer); answer.end(`id: e1\nretry: 50\ndata:\n\n${event({ jsonrpc: '2.0', method: 'notifications/message', params: { n: 1 } }, 'e2')}`); }
    else if (seen.headers['last-event-id']) { events(answer); answer.end(event({ jsonrpc: '2.0', method: 'notifications/message', params: { n: 2 } }, 'e3') + event(result(1, 'done'), 'e4')); }
    else return false;
  });
  const bridge = await new Bridge().begin();
  bridge.say({ id: 1, method: 'slow' });
  same((await only(bridge, 1)).result, 'done', 'answer');
  same(bridge.lines.filter(l => l.method).map(l => l.params.n), [1, 2], 'notifications');
  const resumed = came.find(seen => seen.headers['last-event-id']);
  same([resumed.method, resumed.headers['last-event-id'], resumed.headers['mcp-session-id']], ['GET', 'e2', 'session-1'], 'resumption');
});
await row('stream broken by a reset after an event id: taken up too', async () => {
  script = sessions((seen, answer) => {
    if (seen.message?.method === 'slow') { events(answer); answer.write('id: e1\nretry: 50\ndata:\n\n'); setTimeout(() => answer.destroy(), 50); }
    else if (seen.headers['last-event-id']) { events(answer); answer.end(event(result(1, 'done'), 'e4')); }
    else return false;
  });
  const bridge = await new Bridge().begin();
  bridge.say({ id: 1, method: 'slow' });
  same((await only(bridge, 1)).result, 'done', 'answer');
});
await row('stream broken after an event id that is not ASCII: taken up with its bytes', async () => {
  script = sessions((seen, answer) => {
    if (seen.message?.method === 'slow') { events(answer); answer.end('id: é1\nretry: 50\ndata:\n\n'); }
    else if (seen.headers['last-event-id']) { events(answer); answer.end(event(result(1, Buffer.from(seen.headers['last-event-id'], 'latin1').toString()))); }
    else return false;
  });
  const bridge = await new Bridge().begin();
  bridge.say({ id: 1, method: 'slow' });
  same((await only(bridge, 1)).result, 'é1', 'Last-Event-ID');
});
await row('resumption refused (HTTP 405): one error at once', async () => {
  script = sessions((seen, answer) => {
    if (seen.message?.method === 'slow') { events(answer); answer.end('id: e1\nretry: 50\ndata:\n\n'); }
    else if (seen.headers['last-event-id']) answer.writeHead(405).end();
    else return false;
  });
  const bridge = await new Bridge().begin();
  bridge.say({ id: 1, method: 'slow' });
  must((await only(bridge, 1)).error, 'no error');
  same(came.filter(seen => seen.headers['last-event-id']).length, 1, 'tries');
});
await row('polled: a server that closes nine empty streams before it answers', async () => {
  let polls = 0;
  script = sessions((seen, answer) => {
    if (seen.message?.method === 'slow') { events(answer); answer.end('id: e1\nretry: 50\ndata:\n\n'); }
    else if (seen.headers['last-event-id']) { events(answer); answer.end(++polls > 9 ? event(result(1, 'done'), 'e2') : ': nothing yet\n\n'); }
    else return false;
  });
  const bridge = await new Bridge().begin();
  bridge.say({ id: 1, method: 'slow' });
  const { text, error } = await only(bridge, 1);
  must(!error, `after ${polls} polls: ${text}`);
});
await row('stream broken without an event id: one error, at once', async () => {
  script = sessions((seen, answer) => seen.message?.method === 'slow' ? (events(answer), answer.end(': hello\n\n')) : false);
  const bridge = await new Bridge().begin();
  const from = Date.now();
  bridge.say({ id: 'x', method: 'slow' });
  const { error, at } = await only(bridge, 'x');
  must(error.code === -32603 && at - from < 500, show(error));
});
await row('stream broken for good after an event id: one error within 15 s', async () => {
  script = sessions((seen, answer) => {
    if (seen.message?.method === 'slow') { events(answer); answer.end('id: e1\nretry: 100\ndata:\n\n'); }
    else if (seen.headers['last-event-id']) answer.destroy();
    else return false;
  });
  const bridge = await new Bridge().begin();
  bridge.say({ id: 1, method: 'slow' });
  return (await bridge.answer(1, 15000)).error.message;
});
await row('the server asks: its ids are its own, answers go back with the session', async () => {
  let waiting;
  script = sessions((seen, answer) => {
    if (seen.message?.method === 'tool') { events(answer); answer.write(event({ jsonrpc: '2.0', id: 1, method: 'sampling/createMessage', params: {} })); waiting = answer; }
    else if (seen.message?.result?.sampled) { answer.writeHead(202).end(); waiting.end(event(result(1, 'thanks'))); }
    else return false;
  });
  const bridge = await new Bridge().begin();
  bridge.say({ id: 1, method: 'tool' });
  await bridge.line(l => l.method === 'sampling/createMessage');
  const text = '{"result":{"sampled":12345678901234567890},  "id":1,"jsonrpc":"2.0"}';
  bridge.say(text);
  same((await only(bridge, 1)).result, 'thanks', 'answer');
  const sent = came.find(seen => seen.message?.result);
  same([sent.text, sent.headers['mcp-session-id']], [text, 'session-1'], 'the answer as sent');
});
for (const status of [404, 405, 406, 400]) await row(`no stream of its own (HTTP ${status} to GET): silent, asked once`, async () => {
  script = sessions((seen, answer) => seen.method === 'GET' ? answer.writeHead(status).end() : false);
  const bridge = await new Bridge().begin();
  await wait(1500);
  bridge.say({ id: 1, method: 'ping' });
  await only(bridge, 1);
  same([came.filter(seen => seen.method === 'GET').length, calls('initialize').length], [1, 1], 'GETs and initializations');
});
await row('own stream ended by the server: opened again where it was', async () => {
  let streams = 0;
  script = sessions((seen, answer) => {
    if (seen.method !== 'GET') return false;
    events(answer);
    if (++streams === 1) answer.end(`retry: 100\n${event({ jsonrpc: '2.0', method: 'notifications/a' }, 'g1')}`);
    else answer.write(event({ jsonrpc: '2.0', method: 'notifications/b' }, 'g2'));
  });
  const bridge = await new Bridge().begin();
  await bridge.line(l => l.method === 'notifications/b');
  same(came.filter(seen => seen.method === 'GET').map(seen => seen.headers['last-event-id']), [undefined, 'g1'], 'Last-Event-ID');
});
await row('cancelled in a session: the server is told; a stream that then ends is no error', async () => {
  let open;
  script = sessions((seen, answer) => {
    if (seen.message?.method === 'slow') { events(answer); open = answer; }
    else if (seen.message?.method === 'notifications/cancelled') { answer.writeHead(202).end(); open.end(); }
    else return false;
  });
  const bridge = await new Bridge().begin();
  bridge.say({ id: 7, method: 'slow' });
  await wait(200);
  bridge.say(cancelled(7, { reason: 'enough' }));
  await wait(500);
  same(calls('notifications/cancelled')[0]?.message.params, { requestId: 7, reason: 'enough' }, 'cancellation');
  same(calls('notifications/cancelled')[0].headers['mcp-session-id'], 'session-1', 'its session');
  same(bridge.answers(7).map(l => l.text), [], 'answers to what was cancelled');
});
await row('cancelled in a session in the same write as its request: never before it', async () => {
  script = sessions((seen, answer) => seen.message?.method === 'slow' ? (events(answer), answer.write(': open\n\n')) : false);
  const bridge = await new Bridge().begin();
  for (let id = 0; id < 60; id++) { bridge.say({ id, method: 'slow' }, cancelled(id)); await wait(10); }
  await wait(500);
  const order = came.filter(seen => ['slow', 'notifications/cancelled'].includes(seen.message?.method));
  const early = calls('notifications/cancelled').filter(c => order.findIndex(s => s.message.id === c.message.params.requestId) > order.indexOf(c) || !order.some(s => s.message.id === c.message.params.requestId));
  must(!early.length, `${early.length} of 60 came before the request they cancel`);
});

// ---------- refusals and errors ----------
for (const era of ['legacy', 'stateless']) {
  const ask = (id, method = 'tools/list') => era === 'legacy' ? { id, method } : modern(id, method);
  const start = async () => era === 'legacy' ? new Bridge().begin() : new Bridge();
  const first = (handle, method = 'tools/list') => { let n = 0; script = sessions((seen, answer) => seen.message?.method === method ? handle(++n, seen, answer) : false); };
  await row(`${era}: 401 once, then an answer`, async () => {
    first((n, seen, answer) => n === 1 ? answer.writeHead(401, { 'www-authenticate': 'Bearer error="invalid_token"' }).end() : false);
    const bridge = await start();
    bridge.say(ask(1));
    same((await only(bridge, 1)).result, { echo: 'tools/list' }, 'answer');
    same(calls('tools/list').length, 2, 'tries');
    same(calls('tools/list')[0].text, calls('tools/list')[1].text, 'bytes');
  });
  await row(`${era}: 401 for ever: one error, few tries`, async () => {
    first((n, seen, answer) => answer.writeHead(401, { 'www-authenticate': 'Bearer error="invalid_token"' }).end());
    const bridge = await start();
    bridge.say(ask(1));
    const { error } = await only(bridge, 1);
    must(error.code === -32603 && calls('tools/list').length <= 3, `${calls('tools/list').length} tries`);
    return error.message;
  });
  await row(`${era}: 403 insufficient_scope beyond policy: one error, few tries`, async () => {
    first((n, seen, answer) => answer.writeHead(403, { 'www-authenticate': 'Bearer error="insufficient_scope", scope="canvas.admin"' }).end());
    const bridge = await start();
    bridge.say(ask(1));
    const { error } = await only(bridge, 1);
    must(error.code === -32603 && calls('tools/list').length <= 3, `${calls('tools/list').length} tries`);
    return error.message;
  });
  for (const id of [7, '7']) await row(`${era}: HTTP 400 with id null gets the id ${JSON.stringify(id)}`, async () => {
    first((n, seen, answer) => reply(answer, '{"jsonrpc":"2.0","error":{"code":-32000,"message":"no","data":{"big":12345678901234567890}},"id":null}', 400));
    const bridge = await start();
    bridge.say(ask(id));
    same((await only(bridge, id)).text, `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"error":{"code":-32000,"message":"no","data":{"big":12345678901234567890}}}`, 'line');
  });
  const broken = {
    '202 and nothing': answer => answer.writeHead(202).end(),
    '200 and nothing': answer => reply(answer, ''),
    '200 and HTML': answer => answer.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Sign in</h1>'),
    '200 and half a JSON': answer => reply(answer, '{"jsonrpc":"2.0","id":1,"resu'),
    '200 and the answer to something else': answer => reply(answer, result(99)),
    '500 and text': answer => answer.writeHead(500).end('Internal Server Error'),
    '404 and HTML': answer => answer.writeHead(404, { 'content-type': 'text/html' }).end('<h1>Not Found</h1>'),
    'a redirect elsewhere': answer => answer.writeHead(307, { location: 'https://elsewhere.example/mcp' }).end(),
    'a closed connection': answer => answer.destroy(),
    'a body broken off': answer => { answer.writeHead(200, { 'content-type': 'application/json', 'content-length': 100 }).write('{"jsonrpc"'); setTimeout(() => answer.destroy(), 50); },
    'a stream of nonsense': answer => { events(answer); answer.end('data: {nonsense\n\n'); },
  };
  for (const [what, handle] of Object.entries(broken)) await row(`${era}: ${what}: one error`, async () => {
    first((n, seen, answer) => { handle(answer); });
    const bridge = await start();
    bridge.say(ask(1));
    const { error } = await only(bridge, 1);
    must(error?.code === -32603, show(error));
    return `${error.message} ${error.data.kind}, ${calls('tools/list').length} tries`;
  });
}

// ---------- stateless ----------
await row('stateless: headers repeat the body; the bytes are the client\'s', async () => {
  script = sessions();
  const bridge = await new Bridge();
  const text = '{ "method" :"tools/call","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","x":1e2},"arguments":{"n":12345678901234567890123,"d":0.10,"é":"\\u00e9"},"name":" t\u00e9"},"id": 12345678901234567890,"jsonrpc":"2.0"}';
  bridge.say(text);
  await wait(800);
  const [seen] = calls('tools/call');
  same(seen.text, text, 'bytes');
  const { headers } = seen;
  same([headers['mcp-protocol-version'], headers['mcp-method'], headers['mcp-name'], headers['mcp-session-id'], headers.accept, headers['content-type'], headers.origin],
    ['2026-07-28', 'tools/call', '=?base64?IHTDqQ==?=', undefined, 'application/json, text/event-stream', 'application/json', undefined], 'headers');
});
for (const [what, argument] of Object.entries({ 'a lone surrogate': '"\\ud83e"', 'a number beyond doubles': '1e400', 'two hundred nested arrays': '['.repeat(200) + ']'.repeat(200) }))
  await row(`stateless: ${what} in the arguments changes nothing`, async () => {
    script = sessions();
    const text = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"x":${argument}},"_meta":${JSON.stringify(meta)}}}`;
    const bridge = new Bridge().say(text);
    await only(bridge, 1);
    const [{ headers, text: sent }] = calls('tools/call');
    same(sent, text, 'bytes');
    same([headers['mcp-protocol-version'], headers['mcp-method'], headers['mcp-name']], ['2026-07-28', 'tools/call', 't'], 'headers');
  });
await row('stateless: the answer\'s bytes are the server\'s', async () => {
  const inner = '{"big":12345678901234567890123,"dup":1,"dup":2,"s":"\\ud83e \\u2028","float":1.0e5,"z":{"b":1,"a":2}}';
  script = (seen, answer) => seen.message.id === 1 ? reply(answer, `{"result":${inner},\r\n "extra":1, "id":1,\n"jsonrpc":"2.0"}\n`) : (events(answer), answer.end(`data: {"result":${inner},\ndata: "id":2,"jsonrpc":"2.0"}\n\n`));
  const bridge = new Bridge().say(modern(1, 'a'), modern(2, 'b'));
  same((await only(bridge, 1)).text.replace(/ +/g, ' '), `{"result":${inner}, "extra":1, "id":1, "jsonrpc":"2.0"}`.replace(/ +/g, ' '), 'JSON');
  same((await only(bridge, 2)).text, `{"result":${inner}, "id":2,"jsonrpc":"2.0"}`, 'event');
});
for (const when of ['before its answer begins', 'in the middle of a stream']) await row(`stateless: cancelled ${when}: the server sees it go, nobody hears more`, async () => {
  script = (seen, answer) => { if (seen.message.method !== 'slow') return reply(answer, result(seen.message.id)); if (when !== 'before its answer begins') { events(answer); answer.write(event({ jsonrpc: '2.0', method: 'notifications/progress', params: {} })); } };
  const bridge = new Bridge().say(modern(1, 'slow'), modern('1', 'slow'));
  for (let i = 0; i < 400 && calls('slow').length < 2; i++) await wait(5);
  await wait(100);
  const from = Date.now();
  bridge.say(cancelled(1), modern(2, 'ping'));
  await only(bridge, 2);
  for (let i = 0; i < 400 && !calls('slow').some(s => s.closed); i++) await wait(5);
  const gone = calls('slow').filter(s => s.closed);
  same(gone.map(s => s.message.id), [1], 'gone');
  must(gone[0].closed - from < 1000, `it took ${gone[0].closed - from} ms`);
  same([bridge.answers(1).length, calls('notifications/cancelled').length], [0, 0], 'answers and cancellations');
  bridge.say(cancelled('1'));
  await wait(300);
  must(await bridge.end() < 1000, 'slow to end');
  return `${gone[0].closed - from} ms`;
});
await row('stateless: cancelled in the same write as its request', async () => {
  script = (seen, answer) => { if (seen.message.method !== 'slow') reply(answer, result(seen.message.id)); };
  const bridge = new Bridge();
  for (let id = 0; id < 30; id++) bridge.say(modern(id, 'slow'), cancelled(id));
  bridge.say(modern('last', 'ping'));
  await only(bridge, 'last', 500);
  same(bridge.lines.length, 1, 'lines');
  same(calls('slow').filter(s => !s.closed).length, 0, 'calls still open');
  must(await bridge.end() < 1000, 'slow to end');
});
for (const [what, end, check] of [
  ['by the server with a result', answer => answer.end(event(result('listen:0', { resultType: 'complete' }))), line => same(line.result, { resultType: 'complete' }, 'result')],
  ['abruptly', answer => answer.destroy(), line => must(line.error?.code === -32603, line.text)],
]) await row(`stateless: a subscription ended ${what}`, async () => {
  let open;
  script = (seen, answer) => { events(answer); answer.write(event({ jsonrpc: '2.0', method: 'notifications/subscriptions/acknowledged', params: {} })); open = answer; };
  const bridge = new Bridge().say(modern('listen:0', 'subscriptions/listen', { notifications: {} }));
  await bridge.line(l => l.method);
  open.write(event({ jsonrpc: '2.0', method: 'notifications/tools/list_changed' }));
  await bridge.line(l => l.method?.endsWith('list_changed'));
  end(open);
  check(await only(bridge, 'listen:0'));
  same(calls('subscriptions/listen').length, 1, 'subscriptions');
});
await row('stateless: the end of input ends an open subscription', async () => {
  script = (seen, answer) => events(answer);
  const bridge = new Bridge().say(modern('listen:0', 'subscriptions/listen'));
  for (let i = 0; i < 400 && !came.length; i++) await wait(5);
  await wait(100);
  const took = await bridge.end();
  // The server notices the end of the connection a moment after the process has ended.
  for (let i = 0; i < 200 && !came[0].closed; i++) await wait(5);
  must(took < 1000 && came[0].closed, `${took} ms`);
  return `${took} ms`;
});
const annotated = (name, type = 'string') => ({ name, inputSchema: { type: 'object', properties: { region: { type, 'x-mcp-header': 'Region' } } } });
await row('stateless: -32020: all pages of tools are fetched, the call is sent once more', async () => {
  script = (seen, answer) => {
    const { id, method, params } = seen.message;
    if (method === 'tools/list') return reply(answer, result(id, params.cursor ? { tools: [annotated('t')] } : { tools: [annotated('u')], nextCursor: 'p2' }));
    if (seen.headers['mcp-param-region'] !== 'eu') return reply(answer, { jsonrpc: '2.0', id, error: { code: -32020, message: 'header' } }, 400);
    reply(answer, result(id, 'called'));
  };
  const bridge = new Bridge().say(modern(1, 'tools/call', { name: 't', arguments: { region: 'eu' } }));
  same((await only(bridge, 1)).result, 'called', 'answer');
  same([calls('tools/list').length, calls('tools/call').length, bridge.lines.length], [2, 2, 1], 'lists, calls, lines');
});
await row('stateless: -32020 twice: the server\'s error', async () => {
  script = (seen, answer) => seen.message.method === 'tools/list' ? reply(answer, result(seen.message.id, { tools: [] })) : reply(answer, { jsonrpc: '2.0', id: 1, error: { code: -32020, message: 'header' } }, 400);
  const bridge = new Bridge().say(modern(1, 'tools/call', { name: 't', arguments: {} }));
  same((await only(bridge, 1)).error, { code: -32020, message: 'header' }, 'error');
  same(calls('tools/call').length, 2, 'calls');
});
await row('stateless: a tool with an impossible header is left out', async () => {
  script = (seen, answer) => reply(answer, result(seen.message.id, { tools: [annotated('bad', 'number'), annotated('good')], nextCursor: 'n' }));
  const bridge = new Bridge().say(modern(1, 'tools/list'));
  same((await only(bridge, 1)).result, { tools: [annotated('good')], nextCursor: 'n' }, 'tools');
});
await row('stateless: a notification of the client\'s own names revision and method', async () => {
  script = (seen, answer) => seen.message.id === undefined ? answer.writeHead(202).end() : reply(answer, result(seen.message.id));
  const bridge = new Bridge().say(modern(1, 'ping'));
  await only(bridge, 1);
  bridge.say({ method: 'notifications/custom', params: {} });
  await wait(300);
  const [{ headers }] = calls('notifications/custom');
  same([headers['mcp-protocol-version'], headers['mcp-method']], ['2026-07-28', 'notifications/custom'], 'headers');
});
await row('probe: 503 twice, then the answer', async () => {
  let n = 0;
  script = (seen, answer) => ++n < 3 ? answer.writeHead(503).end() : reply(answer, result(seen.message.id, { supportedVersions: [] }));
  const bridge = new Bridge().say(modern('server-discover-probe-1', 'server/discover'));
  must((await only(bridge, 'server-discover-probe-1')).result, 'no result');
});
await row('probe: 503 for ever: an error within 9 s', async () => {
  script = (seen, answer) => answer.writeHead(503).end();
  const bridge = new Bridge().say(modern(1, 'server/discover'));
  const { at, error } = await bridge.answer(1, 10_000);
  must(at - bridge.started < 9000 && !(error.code <= -32020 && error.code >= -32099), show(error));
  return `${at - bridge.started} ms, ${calls('server/discover').length} tries`;
});
await row('probe of an older server, then a session in the same process', async () => {
  script = sessions((seen, answer) => seen.message?.method === 'server/discover' ? reply(answer, { jsonrpc: '2.0', id: null, error: { code: -32000, message: 'Bad Request: Server not initialized' } }, 400) : false);
  const bridge = new Bridge().say(modern(0, 'server/discover'));
  same((await only(bridge, 0)).error.code, -32000, 'code');
  await bridge.begin();
  bridge.say({ id: 1, method: 'ping' });
  await only(bridge, 1);
});

// ---------- framing ----------
const framings = {
  'CR alone': m => `data: ${m}\r\r`, 'CR LF': m => `event: message\r\ndata: ${m}\r\n\r\n`, 'a BOM': m => `\ufeffdata: ${m}\n\n`, 'no space': m => `data:${m}\n\n`,
  'comments': m => `: ping\n\n:\ndata: ${m}\n: more\n\n`, 'other events': m => `event: ping\ndata: {}\n\ndata: ${m}\n\n`, 'unknown fields': m => `foo: bar\ndata: ${m}\n\n`,
  'fields without a colon': m => `id\ndata\n\ndata: ${m}\n\n`, 'a bad retry': m => `retry: soon\ndata: ${m}\n\n`, 'an id twice': m => `id: 1\nid: 2\ndata: ${m}\n\n`, 'an array': m => `data: [${m}]\n\n`,
  'pretty JSON over many data lines': m => JSON.stringify(JSON.parse(m), null, 2).split('\n').map(l => `data: ${l}\n`).join('') + '\n',
};
for (const [what, frame] of Object.entries(framings)) await row(`stream with ${what}`, async () => {
  script = sessions((seen, answer) => { if (seen.message?.method !== 'x') return false; events(answer); answer.end(frame(JSON.stringify(result(1, { text: 'a "b"  c' })))); });
  const bridge = await new Bridge().begin();
  bridge.say({ id: 1, method: 'x' });
  same((await only(bridge, 1)).result, { text: 'a "b"  c' }, 'answer');
});
await row('stream cut into single bytes, and one event of 24 MB', async () => {
  script = sessions((seen, answer) => {
    if (seen.message?.method === 'bytes') { events(answer); for (const byte of Buffer.from(event(result(1, 'é𝄞')))) answer.write(Buffer.from([byte])); answer.end(); }
    else if (seen.message?.method === 'big') { events(answer); answer.end(event(result(2, 'é'.repeat(12e6)))); }
    else return false;
  });
  const bridge = await new Bridge().begin();
  bridge.say({ id: 1, method: 'bytes' }, { id: 2, method: 'big' });
  same((await only(bridge, 1)).result, 'é𝄞', 'bytes');
  must((await bridge.answer(2, 30_000)).result.length === 12e6, 'big');
});
await row('input with CR LF, blank lines, nonsense and 12 MB in a line', async () => {
  script = sessions();
  const bridge = await new Bridge().begin();
  bridge.say('{"jsonrpc":"2.0","id":1,"method":"ping"}\r', '', '  ', 'nonsense', '{"jsonrpc":"2.0"}', { id: 2, method: 'big', params: { x: 'é'.repeat(6e6) } });
  await only(bridge, 1);
  await bridge.answer(2, 30_000);
  same(bridge.lines.filter(l => l.id === null).map(l => l.error.code), [-32700, -32600], 'codes of nonsense');
  must(calls('big')[0].message.params.x.length === 6e6, 'big');
});
await row('a batch of the old revision', async () => {
  script = sessions((seen, answer) => Array.isArray(seen.message) ? reply(answer, [result(1, 'a'), result(2, 'b')]) : false);
  const bridge = await new Bridge().begin();
  bridge.say('[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","id":2,"method":"b"},{"jsonrpc":"2.0","method":"n"}]');
  same([(await only(bridge, 1)).result, (await only(bridge, 2)).result], ['a', 'b'], 'answers');
});
await row('400 calls at once, answered in pieces', async () => {
  script = sessions((seen, answer) => {
    if (seen.message?.method !== 'x') return false;
    const { id } = seen.message;
    if (id % 2) return setTimeout(() => reply(answer, result(id, id)), Math.random() * 200);
    events(answer);
    answer.write(event({ jsonrpc: '2.0', method: 'notifications/progress', params: { id } }));
    setTimeout(() => answer.end(event(result(id, id))), Math.random() * 200);
  });
  const bridge = await new Bridge().begin();
  const from = Date.now();
  bridge.say(...Array.from({ length: 400 }, (_, id) => ({ id, method: 'x' })));
  for (let id = 0; id < 400; id++) {
    const line = await bridge.answer(id, 20_000);
    same(line.result, id, 'result');
    if (id % 2 === 0) must(bridge.lines.findIndex(l => l.params?.id === id) < bridge.lines.indexOf(line), `progress of ${id} is late or lost`);
  }
  same(bridge.lines.filter(l => typeof l.id === 'number').length, 400, 'answers');
  return `${Date.now() - from} ms`;
});
await row('connections that the server closes while idle', async () => {
  script = sessions();
  front.server.keepAliveTimeout = 40;
  try {
    const bridge = await new Bridge().begin();
    for (let id = 0; id < 150; id++) { bridge.say({ id, method: 'ping' }); await bridge.answer(id); await wait(30 + id % 25); }
    const errors = bridge.lines.filter(l => l.error);
    must(!errors.length, `${errors.length} of 150: ${errors[0]?.text}`);
  } finally { front.server.keepAliveTimeout = 5000; }
});

// ---------- the end ----------
await row('end of input while a call is under way: answered, then DELETE', async () => {
  script = sessions((seen, answer) => seen.message?.method === 'slow' ? setTimeout(() => reply(answer, result(1, 'done')), 1000) : false);
  const bridge = await new Bridge().begin();
  bridge.say({ id: 1, method: 'slow' });
  const took = await bridge.end();
  same((await only(bridge, 1)).result, 'done', 'answer');
  same(came.at(-1).method, 'DELETE', 'last');
  must(took < 1500, `${took} ms`);
  return `${took} ms`;
});
await row('end of input after a cancelled call whose stream stays open: ends within 2 s, with DELETE', async () => {
  script = sessions((seen, answer) => seen.message?.method === 'slow' ? events(answer) : false);
  const bridge = await new Bridge().begin();
  bridge.say({ id: 1, method: 'slow' });
  await wait(200);
  bridge.say(cancelled(1));
  await wait(100);
  const took = await bridge.end();
  same(came.at(-1).method, 'DELETE', 'last');
  must(took < 2000, `${took} ms`);
});
await row('end of input while initialize hangs: ends', async () => {
  script = () => {};
  const bridge = new Bridge().say({ id: 0, method: 'initialize', params: {} });
  for (let i = 0; i < 400 && !came.length; i++) await wait(5);
  return `${await bridge.end(12_000)} ms`;
});
await row('end of input while nothing answers DELETE: ends within 2 s', async () => {
  script = sessions(seen => seen.method === 'DELETE' ? undefined : false);
  const bridge = await new Bridge().begin();
  const took = await bridge.end();
  must(took < 2000, `${took} ms`);
  return `${took} ms`;
});
for (const [what, method] of [['idle', 'ping'], ['a call under way', 'slow'], ['initialize under way', undefined]]) await row(`SIGTERM, ${what}, input open: ends at once, quietly`, async () => {
  script = sessions(seen => seen.message?.method === 'slow' || (!method && seen.message?.method === 'initialize') ? undefined : false);
  const bridge = new Bridge();
  if (method) { await bridge.begin(); bridge.say({ id: 1, method }); } else bridge.say({ id: 0, method: 'initialize', params: {} });
  for (let i = 0; i < 400 && !calls(method ?? 'initialize').length; i++) await wait(5);
  await wait(100);
  const from = Date.now();
  bridge.child.kill('SIGTERM');
  const done = await Promise.race([bridge.ended, wait(5000)]);
  must(done && done.at - from < 500, `${done && done.at - from} ms`);
  if (method) same(came.at(-1).method, 'DELETE', 'last');
  must(done.rest === '', `half a line: ${done.rest}`);
  return `${done.at - from} ms, code ${done.code}, signal ${done.signal}`;
});
await row('output gone: ends', async () => {
  script = sessions();
  const bridge = await new Bridge().begin();
  bridge.child.stdout.destroy();
  await wait(50);
  const from = Date.now();
  bridge.say({ id: 1, method: 'ping' }, { id: 2, method: 'ping' });
  const done = await Promise.race([bridge.ended, wait(5000)]);
  must(done, 'still running after 5 s');
  return `${done.at - from} ms`;
});
await row('killed by a probe 20 ms after its answer; the next one is there at once', async () => {
  script = (seen, answer) => reply(answer, result(seen.message.id, {}));
  const one = new Bridge().say(modern('server-discover-probe-1', 'server/discover'));
  await one.answer('server-discover-probe-1');
  await wait(20);
  one.child.kill('SIGKILL');
  const two = new Bridge().say(modern(0, 'tools/list'));
  const { at } = await only(two, 0);
  must(at - two.started < 1500, `${at - two.started} ms`);
});

// ---------- cost ----------
await row('cost: start to first tools/list with a kept token; memory', async () => {
  script = (seen, answer) => reply(answer, result(seen.message.id, { tools: [] }));
  const times = [];
  let memory;
  for (let i = 0; i < 10; i++) {
    const bridge = new Bridge().say(modern(1, 'tools/list'));
    times.push((await bridge.answer(1)).at - bridge.started);
    const status = readFileSync(`/proc/${bridge.child.pid}/status`, 'utf8');
    memory = /VmRSS:\s+(\d+)/.exec(status)[1] / 1024;
    await bridge.end();
  }
  const bridge = new Bridge().say(modern(0, 'tools/list'));
  await bridge.answer(0);
  const from = performance.now();
  for (let id = 1; id <= 200; id++) { bridge.say(modern(id, 'tools/list')); while (!bridge.answers(id).length) await new Promise(setImmediate); }
  const each = (performance.now() - from) / 200;
  return `median ${times.sort((a, b) => a - b)[5]} ms (${times[0]}–${times[9]}), ${memory.toFixed(1)} MB, then ${each.toFixed(2)} ms a call with the guard`;
});

console.log(`\n${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
