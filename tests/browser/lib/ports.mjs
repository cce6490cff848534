// Ports for programs that cannot be told to take a free one themselves.

import { createServer } from 'node:net';
import { once } from 'node:events';

/** So many ports that nothing listens on now, all different. */
export async function freePorts(count) {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
  return ports;
}
