// Plain requests to nginx, as curl would make them: no browser that hides headers or follows redirects.

import http from 'node:http';
import https from 'node:https';

/**
 * An answer: status, headers, text, and json if it is some. `from` is the address that the request comes from; `agents`, by
 * protocol, keep connections open.
 */
export function request(url, { method = 'GET', headers = {}, ca, from, agents } = {}) {
  const { protocol, hostname, port, pathname, search } = new URL(url);
  const client = protocol === 'https:' ? https : http;
  const agent = agents?.[protocol] ?? false;
  // The domain exists only for the test.
  const options = {
    host: '127.0.0.1', port, method, ca, agent, servername: hostname, localAddress: from,
    path: pathname + search, headers: { Host: `${hostname}:${port}`, ...headers },
  };
  return new Promise((resolve, reject) => {
    const outgoing = client.request(options, (incoming) => collect(incoming).then(resolve, reject));
    // A handshake that succeeds. Nothing is said on the socket.
    outgoing.on('upgrade', ({ statusCode, headers }, socket) => {
      socket.destroy();
      resolve({ status: statusCode, headers });
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
}

/** The headers of an opening handshake. */
export const HANDSHAKE = {
  Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': btoa('x'.repeat(16)),
};

async function collect(incoming) {
  const chunks = await incoming.toArray();
  const text = Buffer.concat(chunks).toString();
  const isJson = incoming.headers['content-type']?.startsWith('application/json');
  return { status: incoming.statusCode, headers: incoming.headers, text, json: isJson ? JSON.parse(text) : undefined };
}
