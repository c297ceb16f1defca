// The Express app of the official TypeScript SDK as an MCP server, as in its documentation: with
// `express.json()` in front. GENERATION: 1 (@modelcontextprotocol/sdk) or 2
// (@modelcontextprotocol/express). PORT.
import { z } from 'zod';

const { GENERATION, PORT } = process.env;
const tools = server => {
  for (const name of ['echo', 'wipe_all']) {
    const answer = ({ message = '' }) => ({ content: [{ type: 'text', text: name === 'echo' ? `said ${message}` : 'EVERYTHING WIPED' }] });
    server.registerTool(name, { description: name, inputSchema: GENERATION === '1' ? { message: z.string().optional() } : z.object({ message: z.string().optional() }) }, answer);
  }
  return server;
};
const about = { name: `express-${GENERATION}`, version: '1.0.0' };
let app;
if (GENERATION === '1') {
  const { createMcpExpressApp } = await import('@modelcontextprotocol/sdk/server/express.js');
  const { McpServer } = await import('@modelcontextprotocol/sdk/server/mcp.js');
  const { StreamableHTTPServerTransport } = await import('@modelcontextprotocol/sdk/server/streamableHttp.js');
  app = createMcpExpressApp();
  app.post('/mcp', async (request, response) => {
    const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
    await tools(new McpServer(about)).connect(transport);
    await transport.handleRequest(request, response, request.body);
  });
} else {
  const { createMcpExpressApp } = await import('@modelcontextprotocol/express');
  const { createMcpHandler, McpServer } = await import('@modelcontextprotocol/server');
  const { toNodeHandler } = await import('@modelcontextprotocol/node');
  app = createMcpExpressApp();
  const handler = toNodeHandler(createMcpHandler(() => tools(new McpServer(about))));
  app.post('/mcp', (request, response) => handler(request, response, request.body));
}
app.listen(Number(PORT), '127.0.0.1');
