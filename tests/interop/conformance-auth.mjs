// Adds the token to the test client: every request of the conformance suite's server scenarios gets
// AUTH as its Authorization header. Load it with node --import.
import http from 'node:http';
import { createRequire } from 'node:module';
const undici = createRequire(new URL('./node_modules/@modelcontextprotocol/conformance/dist/index.js', import.meta.url))('undici');
const auth = process.env.AUTH;
undici.setGlobalDispatcher(new undici.Agent().compose(dispatch => (options, handler) => {
  let headers = options.headers;
  if (Array.isArray(headers)) headers = [...headers, 'authorization', auth];
  else if (headers && typeof headers[Symbol.iterator] === 'function') headers = [...headers, ['authorization', auth]].flat();
  else headers = { ...headers, authorization: auth };
  return dispatch({ ...options, headers }, handler);
}));
const real = http.request;
http.request = (options, ...rest) => real({ ...options, headers: { ...options.headers, Authorization: auth } }, ...rest);
