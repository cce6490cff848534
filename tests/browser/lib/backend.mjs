// Stands in for the backend behind `/api/`: answers every request with what it received.

import { createServer } from 'node:http';
import { once } from 'node:events';

import { onStop } from './processes.mjs';

/** Returns its address as host:port. */
export async function startBackend() {
  const server = createServer((request, response) => {
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify({ backend: true, url: request.url, headers: request.headers }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onStop(() => {
    server.close();
    server.closeAllConnections();
  });
  return `127.0.0.1:${server.address().port}`;
}
