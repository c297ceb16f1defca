// A stand-in for the hosts' models, on loopback: Anthropic messages (Claude Code), OpenAI responses
// (Codex) and Gemini. The prompt `CALL tool {json}` makes the host call that tool once; the tool's
// result is returned as `RESULT: …`.
import { createServer } from 'node:http';

/** The text of a part in any of the three formats. */
const text = part => typeof part === 'string' ? part
  : Array.isArray(part) ? part.map(text).join('\n')
  : part?.text ?? (part?.content ? text(part.content) : part?.output ? text(part.output) : '');

// The contents of a request: the user's texts, the offered tools (name, and namespace if there is
// one), a tool result.
const formats = {
  messages(body) {
    const parts = body.messages.filter(m => m.role === 'user').flatMap(m => Array.isArray(m.content) ? m.content : [{ type: 'text', text: m.content }]);
    return {
      texts: parts.filter(p => p.type === 'text').map(text),
      tools: (body.tools ?? []).map(({ name }) => ({ name })),
      result: parts.filter(p => p.type === 'tool_result').map(text).at(-1),
    };
  },
  responses(body) {
    const items = Array.isArray(body.input) ? body.input : [{ role: 'user', content: body.input }];
    return {
      texts: items.filter(i => i.role === 'user').map(text),
      tools: (body.tools ?? []).flatMap(t => t.type === 'namespace' ? t.tools.map(({ name }) => ({ name, namespace: t.name })) : t.name ? [{ name: t.name }] : []),
      result: items.filter(i => /_output$/.test(i.type)).map(text).at(-1),
    };
  },
  gemini(body) {
    const parts = body.contents.filter(c => c.role === 'user').flatMap(c => c.parts);
    return {
      texts: parts.filter(p => p.text).map(text),
      tools: (body.tools ?? []).flatMap(t => t.functionDeclarations ?? []).map(({ name }) => ({ name })),
      result: parts.filter(p => p.functionResponse).map(p => JSON.stringify(p.functionResponse.response)).at(-1),
    };
  },
};

/** What the model does: a text, or a call of the tool that was asked for. */
function decide({ texts, tools, result }) {
  if (result !== undefined) return { text: `RESULT: ${result}` };
  const asked = [...texts.join('\n').matchAll(/^CALL (\S+) (\{.*\})$/gm)].at(-1);
  const tool = asked && tools.find(({ name }) => name.endsWith(asked[1]));
  return tool ? { ...tool, input: JSON.parse(asked[2]) } : { text: asked ? `NO TOOL ${asked[1]}` : 'ok' };
}

// The answer as events of a stream, each with its name, if it has one, and its data.
const answers = {
  messages(did, { model }) {
    const message = { id: 'msg_1', type: 'message', role: 'assistant', model, content: [], stop_reason: null, stop_sequence: null, usage: { input_tokens: 1, output_tokens: 1 } };
    const [block, delta] = did.name
      ? [{ type: 'tool_use', id: 'toolu_1', name: did.name, input: {} }, { type: 'input_json_delta', partial_json: JSON.stringify(did.input) }]
      : [{ type: 'text', text: '' }, { type: 'text_delta', text: did.text }];
    return [
      { type: 'message_start', message },
      { type: 'content_block_start', index: 0, content_block: block },
      { type: 'content_block_delta', index: 0, delta },
      { type: 'content_block_stop', index: 0 },
      { type: 'message_delta', delta: { stop_reason: did.name ? 'tool_use' : 'end_turn', stop_sequence: null }, usage: { output_tokens: 1 } },
      { type: 'message_stop' },
    ];
  },
  responses(did, { model }) {
    const item = did.name
      ? { type: 'function_call', id: 'fc_1', call_id: 'call_1', name: did.name, namespace: did.namespace, arguments: JSON.stringify(did.input), status: 'completed' }
      : { type: 'message', id: 'msg_1', role: 'assistant', status: 'completed', content: [{ type: 'output_text', text: did.text, annotations: [] }] };
    const response = { id: 'resp_1', object: 'response', created_at: 0, status: 'completed', model, output: [item], usage: { input_tokens: 1, output_tokens: 1, total_tokens: 2 } };
    return [
      { type: 'response.created', response: { ...response, status: 'in_progress', output: [] } },
      { type: 'response.output_item.done', output_index: 0, item },
      { type: 'response.completed', response },
    ];
  },
  gemini(did) {
    const part = did.name ? { functionCall: { name: did.name, args: did.input } } : { text: did.text };
    return [{ candidates: [{ content: { role: 'model', parts: [part] }, finishReason: 'STOP', index: 0 }], usageMetadata: { promptTokenCount: 1, candidatesTokenCount: 1, totalTokenCount: 2 } }];
  },
};

/** Starts one: its URL, and the tools that the last request with any has offered. */
export async function fakeModel() {
  let offered = [];
  const server = createServer(async (request, response) => {
    let raw = '';
    for await (const chunk of request) raw += chunk;
    const path = request.url.split('?')[0];
    const format = path.endsWith('/messages') ? 'messages' : path.endsWith('/responses') ? 'responses' : path.includes('enerateContent') ? 'gemini' : undefined;
    const json = value => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    if (!format || request.method !== 'POST') return json({});
    const body = JSON.parse(raw);
    const asked = formats[format](body);
    if (asked.tools.length) offered = asked.tools.map(tool => tool.name);
    const events = answers[format](decide(asked), body);
    // Only this format is also requested without streaming; without `alt=sse` it is not a stream
    // either.
    if (format === 'gemini' && !path.includes(':stream')) return json(events[0]);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(events.map(event => `${event.type ? `event: ${event.type}\n` : ''}data: ${JSON.stringify(event)}\n\n`).join(''));
  }).listen(0, '127.0.0.1');
  await new Promise(r => server.once('listening', r));
  return { url: `http://127.0.0.1:${server.address().port}`, offered: () => offered, close: () => server.close() };
}
