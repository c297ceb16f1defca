// The same script with @modelcontextprotocol/client 2.4.0, once straight to an MCP server and once through
// `passavant connect`: everything that comes must be the same. Node >= 20. Prints one line of JSON.
// env: PASSAVANT PASSAVANT_HOME MCP_URL SERVER=everything|canvas ERA=legacy|2026-07-28|auto [SCOPE: for the direct token]
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';

const { PASSAVANT, PASSAVANT_HOME, MCP_URL, SERVER = 'everything', ERA = 'legacy', SCOPE } = process.env;
const any = { '~standard': { version: 1, vendor: 'any', validate: value => ({ value }) } };
const settled = () => new Promise(r => setTimeout(r, 300));

// ---------- what both ways do ----------
const tricky = 'héllo \u2028\u2029 "quoted"\\ \u0007 𝄞 \ud83e\udd80';
const answers = { // by property of the form
  response: tricky, name: 'Ada', color: 'blue', ok: true, context: 'here', age: 41, score: 1.5, status: 'pending', verified: false,
  untitledSingle: 'active', titledSingle: 'low', untitledMulti: ['read'], titledMulti: ['bug', 'docs'], legacyEnum: 'small',
};
const given = { test_sampling: { prompt: tricky }, test_elicitation: { message: tricky } };

async function everything(way) {
  const { client, step, modern } = way;
  const { tools } = await step('tools/list', () => client.listTools());
  // Under load the server repeats on a resumed stream what it was about to send on the earlier one.
  for (const { name } of tools)
    await step(`call ${name}`, () => client.callTool({ name, arguments: given[name] ?? {} }), undefined, { ordered: name !== 'test_reconnection' });
  await step('call test_x_mcp_header, not ASCII', () => client.callTool({ name: 'test_x_mcp_header', arguments: { region: ' héllo ' } }));
  await step('call unknown', () => client.callTool({ name: 'no_such_tool', arguments: {} }));
  await step('call, bad arguments', () => client.callTool({ name: 'test_sampling', arguments: { prompt: 7 } }));
  await step('call test_tool_with_progress, progress', () =>
    client.callTool({ name: 'test_tool_with_progress', arguments: {} }, { onprogress: () => {} }));
  const _meta = { 'io.modelcontextprotocol/logLevel': 'debug' };
  if (!modern) await step('logging/setLevel', () => client.setLoggingLevel('debug'));
  await step('call test_tool_with_logging, log', () => client.callTool({ name: 'test_tool_with_logging', arguments: {}, ...(modern && { _meta }) }));
  await step('cancel at the first progress', async control => {
    const call = client.callTool({ name: 'test_tool_with_progress', arguments: {} }, { signal: control.signal, onprogress: () => control.abort('enough') });
    return call.then(() => 'answered', error => `refused: ${error.name}`);
  }, new AbortController(), { raw: false }); // How far the server got is a matter of chance.
  await step('call after the cancellation', () => client.callTool({ name: 'test_simple_text', arguments: {} }));

  await step('resources/list', () => client.listResources());
  await step('resources/templates/list', () => client.listResourceTemplates());
  for (const uri of ['test://static-text', 'test://static-binary', 'test://template/é 7/data', 'test://nowhere'])
    await step(`read ${uri}`, () => client.readResource({ uri }));
  await step('subscribe', () => client.subscribeResource({ uri: 'test://watched-resource' }));
  await step('unsubscribe', () => client.unsubscribeResource({ uri: 'test://watched-resource' }));

  const { prompts } = await step('prompts/list', () => client.listPrompts());
  for (const { name, arguments: wanted = [] } of prompts)
    await step(`prompt ${name}`, () => client.getPrompt({ name, arguments: Object.fromEntries(wanted.map(a => [a.name, `test://${tricky}`])) }));
  await step('prompt unknown', () => client.getPrompt({ name: 'no_such_prompt' }));
  const big = 'Ångström \u2028'.repeat(100_000);
  await step('prompt of 1 MB', () => client.getPrompt({ name: 'test_prompt_with_arguments', arguments: { arg1: big, arg2: '' } }));
  await step('40 prompts at once', () => Promise.all(Array.from({ length: 40 }, (_, i) =>
    client.getPrompt({ name: 'test_prompt_with_arguments', arguments: { arg1: `${i}`, arg2: '' } }))), undefined, { ordered: false });
  await step('complete', () => client.complete({ ref: { type: 'ref/prompt', name: 'test_prompt_with_arguments' }, argument: { name: 'arg1', value: 'x' } }));

  if (modern) {
    await step('listen, one event, close', async () => {
      const open = await client.listen({ toolsListChanged: true });
      await client.callTool({ name: 'test_trigger_tool_change', arguments: {} });
      await settled();
      await open.close();
      return { filter: open.honoredFilter, closed: await open.closed };
    }, undefined, { ordered: false });
    await step('call after the subscription', () => client.callTool({ name: 'test_trigger_tool_change', arguments: {} }));
  }
}

async function canvas({ client, step }) {
  const canvas = `zz-${randomUUID()}`;
  await step('tools/list', () => client.listTools());
  await step('list', () => client.callTool({ name: 'canvas_list', arguments: {} }));
  await step('read welcome', () => client.callTool({ name: 'canvas_read', arguments: { canvas: 'welcome' } }));
  await step('read nowhere', () => client.callTool({ name: 'canvas_read', arguments: { canvas: tricky } }));
  await step('draw', () => client.callTool({ name: 'canvas_draw', arguments: { canvas, shape: { kind: 'text', x: 1, y: -2, label: tricky } } }));
  await step('read it', () => client.callTool({ name: 'canvas_read', arguments: { canvas } }));
  await step('call, bad arguments', () => client.callTool({ name: 'canvas_read', arguments: { canvas: 7 } }));
  await step('call unknown', () => client.callTool({ name: 'no_such_tool', arguments: {} }));
  await step('resources/list', () => client.request({ method: 'resources/list' }, any));
  await step('20 reads at once', () => Promise.all(Array.from({ length: 20 }, () =>
    client.callTool({ name: 'canvas_read', arguments: { canvas } }))), undefined, { ordered: false });
}

// ---------- one way ----------
/** Without what is random: encrypted state, and the canvases of other runs. */
const normal = value => JSON.parse(JSON.stringify(value ?? null)
  .replace(/"requestState":"[^"]*"/g, '"requestState":"?"').replace(/,?\\*"zz-[0-9a-f-]{36}\\*"/g, ''));
const told = error => ({ name: error.name, code: error.code, message: error.message, data: error.data });

async function walk(transport, capabilities) {
  const steps = [], came = [];
  const client = new Client({ name: 'ts-diff', version: '1' }, {
    capabilities, versionNegotiation: { mode: /^\d/.test(ERA) ? { pin: ERA } : ERA },
  });
  transport.onmessage = message => came.push(message);
  // The SDK loses the last progress notification if it reads it together with the response.
  client.onerror = error => /progress notification for an unknown token/.test(error.message) || came.push({ onerror: error.message });
  if (capabilities.sampling) client.setRequestHandler('sampling/createMessage', ({ params }) => ({ role: 'assistant', model: 'm', content: { type: 'text', text: `heard ${params.messages[0].content.text}` } }));
  if (capabilities.roots) client.setRequestHandler('roots/list', () => ({ roots: [{ uri: 'file:///tmp', name: 'one' }] }));
  if (capabilities.elicitation) client.setRequestHandler('elicitation/create', ({ params }) => ({
    action: 'accept', content: Object.fromEntries(Object.keys(params.requestedSchema.properties).map(key => [key, answers[key]])),
  }));
  /** Runs `work` and keeps its outcome, and every message that came meanwhile. */
  async function step(name, work, argument, { raw = true, ordered = true } = {}) {
    came.length = 0;
    let outcome, result;
    try { outcome = { result: result = await work(argument) }; } catch (error) { outcome = { error: told(error) }; }
    if (!raw) await settled();
    const messages = came.map(message => JSON.stringify(normal(message)));
    steps.push({ name, ...normal(outcome), ...(raw && { messages: ordered ? messages : [...new Set(messages)].sort() }) });
    return result;
  }
  await step('connect', async () => {
    await client.connect(transport);
    return [client.getProtocolEra(), client.getNegotiatedProtocolVersion(), client.getServerVersion(), client.getServerCapabilities(), client.getInstructions(), client.getDiscoverResult()];
  }, undefined, { raw: ERA !== 'auto' }); // The SDK probes with a child process of its own.
  if (!client.getProtocolEra()) throw new Error(`no connection: ${JSON.stringify(steps[0].error)}`);
  const modern = client.getProtocolEra() === 'modern';
  await step('ping', () => client.ping());
  if (capabilities.sampling) await (SERVER === 'canvas' ? canvas : everything)({ client, step, modern });
  else for (const name of ['test_missing_capability', 'test_sampling', 'test_elicitation', 'test_streaming_elicitation', 'test_input_required_result_capabilities'])
    await step(`call ${name} without capabilities`, () => client.callTool({ name, arguments: given[name] ?? {} }));
  await step('unknown method', () => client.request({ method: 'no/such/method', params: {} }, any));
  await step('unknown notification', () => client.notification({ method: 'notifications/no_such', params: {} }));
  await client.close();
  return steps;
}

// ---------- both, compared ----------
const run = (...args) => execFileSync(PASSAVANT, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();
const direct = () => new StreamableHTTPClientTransport(new URL(MCP_URL), {
  requestInit: { headers: { authorization: `Bearer ${run('token', MCP_URL, ...(SCOPE ? ['--scope', SCOPE] : []))}` } },
});
const bridged = () => new StdioClientTransport({ command: PASSAVANT, args: ['connect', MCP_URL], env: { ...process.env, PASSAVANT_HOME }, stderr: 'inherit' });

/** Why two outcomes may differ, or nothing. */
function explanation(a, b) {
  // Over HTTP the SDK converts an error status to an exception of its own, whose text contains the
  // JSON-RPC error.
  if (a.error?.name === 'SdkHttpError' && a.name === 'unknown notification' && !b.error) return 'on stdio nobody hears that a notification was refused';
  if (a.error?.name === 'SdkHttpError' && b.error?.code !== undefined && a.error.data?.text) {
    const said = JSON.parse(a.error.data.text).error;
    if (said?.code === b.error.code && b.error.message.endsWith(said.message)) return 'an error status over HTTP, the same JSON-RPC error on stdio';
  }
}
const scope = () => JSON.parse(Buffer.from(run('token', MCP_URL).split('.')[1], 'base64url')).scope;
const differences = [], explained = [], scopes = [];
let compared = 0;
try {
  for (const capabilities of SERVER === 'canvas' ? [{ sampling: {} }] : [{ sampling: {}, elicitation: {}, roots: {} }, {}]) {
    const ways = await walk(direct(), capabilities);
    scopes.push(scope());
    const others = await walk(bridged(), capabilities);
    scopes.push(scope()); // Wider after a step-up.
    for (let i = 0; i < Math.max(ways.length, others.length); i++, compared++) {
      const [a, b] = [ways[i], others[i]];
      if (JSON.stringify(a) === JSON.stringify(b)) continue;
      const why = a && b && explanation(a, b);
      if (why) explained.push(`${a.name}: ${why}`);
      else differences.push({ step: a?.name ?? b?.name, direct: a, bridged: b });
    }
    if (process.env.SHOW) console.error(JSON.stringify(others, null, 1));
  }
} catch (error) {
  differences.push({ step: 'none', error: error.stack });
}
const ok = differences.length === 0 && compared > 0;
console.log(JSON.stringify({ ok, era: ERA, server: SERVER, compared, scopes, explained, differences }));
process.exit(ok ? 0 : 1);
