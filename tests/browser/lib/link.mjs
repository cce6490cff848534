// The wire between nginx and the hub: a TCP relay that can be cut, as a network is.

import { connect, createServer } from 'node:net';
import { once } from 'node:events';

import { onStop } from './processes.mjs';

/** Relays to `target` (host:port). */
export async function startLink(target) {
  const [host, port] = target.split(':');
  const pairs = new Set(); // { near, far, head }
  let gate = Promise.resolve();
  let open = () => {};

  const server = createServer(async (near) => {
    const pair = { near, far: null, head: '' };
    near.on('error', () => {});
    near.on('close', () => pairs.delete(pair));
    pairs.add(pair);
    await gate;
    if (near.destroyed) return;
    pair.far = connect({ host, port });
    pair.far.on('error', () => near.resetAndDestroy());
    near.on('close', () => pair.far.destroy());
    pair.far.on('close', () => near.destroy());
    // A connection that nginx keeps open carries one request after the other; the latest says what it is.
    near.on('data', (bytes) => {
      if (bytes.includes(' HTTP/1.1\r\n')) pair.head = bytes.toString('latin1');
    });
    near.pipe(pair.far).pipe(near);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onStop(() => {
    pairs.forEach(({ near }) => near.destroy());
    server.close();
  });

  return {
    address: `127.0.0.1:${server.address().port}`,
    /**
     * Resets the WebSocket whose handshake carried `text`, and the idle connections of HTTP. What connects from now on
     * is taken but not carried any further, until restore(). Returns how many WebSockets were cut.
     */
    cut(text) {
      gate = new Promise((resolve) => (open = resolve));
      const sockets = [...pairs].filter(({ head }) => isHandshake(head));
      const hit = sockets.filter(({ head }) => head.includes(text));
      const idle = [...pairs].filter((pair) => !sockets.includes(pair));
      [...hit, ...idle].forEach(reset);
      return hit.length;
    },
    restore() {
      gate = Promise.resolve();
      open();
    },
    /** Takes no connection any more: the hub is away. */
    async shut() {
      server.close();
      pairs.forEach(reset);
      await once(server, 'close');
    },
  };
}

function isHandshake(head) {
  return /\r\nupgrade: websocket\r\n/i.test(head);
}

function reset({ near, far }) {
  near.resetAndDestroy();
  far?.resetAndDestroy();
}
