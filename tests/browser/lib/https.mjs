// Plain requests to nginx, as curl would make them: no browser that hides headers or follows redirects.

import http from 'node:http';
import https from 'node:https';

/** An answer: status, headers, text, and json if it is some. */
export function request(url, { method = 'GET', headers = {}, ca } = {}) {
  const { protocol, hostname, port, pathname, search } = new URL(url);
  const client = protocol === 'https:' ? https : http;
  // The domain exists only for the test.
  const options = {
    host: '127.0.0.1', port, method, ca, agent: false, servername: hostname,
    path: pathname + search, headers: { Host: `${hostname}:${port}`, ...headers },
  };
  return new Promise((resolve, reject) => {
    const outgoing = client.request(options, (incoming) => collect(incoming).then(resolve, reject));
    outgoing.on('error', reject);
    outgoing.end();
  });
}

async function collect(incoming) {
  const chunks = await incoming.toArray();
  const text = Buffer.concat(chunks).toString();
  const isJson = incoming.headers['content-type']?.startsWith('application/json');
  return { status: incoming.statusCode, headers: incoming.headers, text, json: isJson ? JSON.parse(text) : undefined };
}
