// The network between two programs: a TCP relay that can be as bad as networks are. Everything is per relay, and bounded.

import { connect, createServer } from 'node:net';
import { once } from 'node:events';

import { Lane } from './lane.mjs';
import { onStop } from './processes.mjs';

const CONNECTIONS_MAX = 2048;

/** Relays from a port of its own to `target` (host:port). */
export async function startNetwork(target) {
  const network = new Network(target);
  await network.listen(0);
  onStop(() => network.stop());
  return network;
}

class Network {
  /** How many connections it has taken so far. */
  taken = 0;

  #target;
  #server;
  #port;
  #pairs = new Set();
  #held = false;
  #conditions = { up: {}, down: {} };

  constructor(target) {
    const [host, port] = target.split(':');
    this.#target = { host, port: Number(port) };
  }

  get address() {
    return `127.0.0.1:${this.#port}`;
  }

  /** How many connections are open now. */
  get open() {
    return this.#pairs.size;
  }

  async listen(port) {
    this.#server = createServer({ allowHalfOpen: true }, (near) => this.#take(near));
    this.#server.listen(port, '127.0.0.1');
    await once(this.#server, 'listening');
    this.#port = this.#server.address().port;
  }

  /**
   * Nothing gets through any more, in neither direction or only not in one, on connections that are there and on new ones; nobody is
   * told. What is sent meanwhile waits in the buffers of the kernel, as it would for its retransmission, until restore().
   */
  blackHole({ up = true, down = true } = {}) {
    this.#shape({ up: up ? { hole: true } : {}, down: down ? { hole: true } : {} });
  }

  /** Carries so many `bytesPerSecond`, each byte after `delayMs` and up to `jitterMs` more; `up` is away from who connects. */
  shape({ up = {}, down = {} }) {
    this.#shape({ up, down });
  }

  /** Resets the connections that are there; with `carrying`, only those whose latest head of HTTP has this text. Returns how many. */
  cut({ carrying = '' } = {}) {
    const hit = [...this.#pairs].filter(({ head }) => head.includes(carrying));
    hit.forEach((pair) => pair.reset());
    return hit.length;
  }

  /**
   * Resets the WebSocket whose handshake carried `text`, and the connections that a proxy keeps for its next request. What connects
   * from now on is taken but not carried any further, until restore(). Returns how many WebSockets were cut.
   */
  cutOff(text) {
    this.#held = true;
    const sockets = [...this.#pairs].filter(({ head }) => isHandshake(head));
    const hit = sockets.filter(({ head }) => head.includes(text));
    const idle = [...this.#pairs].filter((pair) => !sockets.includes(pair));
    [...hit, ...idle].forEach((pair) => pair.reset());
    return hit.length;
  }

  /** Takes no connection any more and resets those that are there: nothing is behind this address, until restore(). */
  async refuse() {
    if (!this.#server.listening) return;
    this.#server.close();
    this.cut();
    await once(this.#server, 'close');
  }

  /**
   * A good network again. With `moved`, connections from before stay dead without being told, as those of a phone do that has come
   * into another network. With `later`, what was sent on them is still under way, until release().
   */
  async restore({ moved = false, later = false } = {}) {
    if (moved) this.#pairs.forEach((pair) => pair.forget());
    if (later) this.#pairs.forEach((pair) => pair.holdBack(true));
    this.#held = false;
    this.#shape({ up: {}, down: {} });
    if (!this.#server.listening) await this.listen(this.#port);
    for (const pair of this.#pairs) if (!pair.far) this.#carry(pair);
  }

  /** What was still under way arrives. */
  release() {
    this.#pairs.forEach((pair) => pair.holdBack(false));
    this.#shape(this.#conditions);
  }

  stop() {
    this.#server.close();
    this.#pairs.forEach((pair) => pair.destroy());
  }

  #shape({ up, down }) {
    this.#conditions = { up, down };
    for (const pair of this.#pairs) pair.shape(this.#conditions);
  }

  #take(near) {
    this.taken += 1;
    if (this.#pairs.size >= CONNECTIONS_MAX) return near.resetAndDestroy();
    const pair = new Pair(near, () => this.#pairs.delete(pair));
    this.#pairs.add(pair);
    if (!this.#held) this.#carry(pair);
  }

  #carry(pair) {
    pair.carryTo(this.#target);
    pair.shape(this.#conditions);
  }
}

/** One connection: `near` is who connected, `far` whom they wanted. */
class Pair {
  far = null;
  head = '';

  #near;
  #lanes = [];
  #gone;
  #forgotten = false;
  #heldBack = false;

  constructor(near, gone) {
    this.#near = near;
    this.#gone = gone;
    near.pause();
    near.setNoDelay(true);
    near.on('error', () => {});
    near.on('close', () => this.#closed());
  }

  carryTo(target) {
    const [near, far] = [this.#near, connect({ ...target, allowHalfOpen: true, noDelay: true })];
    this.far = far;
    far.pause();
    far.on('error', () => this.#abort(near));
    near.on('error', () => this.#abort(far));
    far.on('close', () => this.#closed());
    // A connection that is kept open carries one request after the other; the latest says what it is.
    const read = (bytes) => {
      if (bytes.includes(' HTTP/1.1\r\n')) this.head = bytes.toString('latin1');
    };
    this.#lanes = [new Lane(near, far, read), new Lane(far, near)];
  }

  shape({ up, down }) {
    if (this.#forgotten || this.#heldBack) return;
    [up, down].forEach((conditions, nth) => this.#lanes[nth]?.shape(conditions));
    this.#closed();
  }

  holdBack(is) {
    this.#heldBack = is;
  }

  /** Stays dead for good: what either side sends is taken and dropped. */
  forget() {
    this.#forgotten = true;
    this.#lanes.forEach((lane) => lane.shape({ hole: true }));
    for (const side of [this.#near, this.far].filter(Boolean)) {
      side.removeAllListeners('data');
      side.on('end', () => side.destroy());
      side.resume();
    }
  }

  reset() {
    this.#near.resetAndDestroy();
    this.far?.resetAndDestroy();
  }

  destroy() {
    this.#near.destroy();
    this.far?.destroy();
  }

  /** One side has failed; the other is told, unless nothing gets to it. */
  #abort(other) {
    if (this.#lanes.every((lane) => !lane.isHole)) other.resetAndDestroy();
  }

  #closed() {
    const sides = [this.#near, this.far].filter(Boolean);
    const left = sides.filter(({ destroyed }) => !destroyed);
    if (left.length === 0) return this.#gone();
    // In a black hole the other side is not told; it is counted until it gives up by itself, or until the network is back.
    if (left.length < sides.length && this.#lanes.every((lane) => !lane.isHole)) left.forEach((side) => side.destroy());
  }
}

function isHandshake(head) {
  return /\r\nupgrade: websocket\r\n/i.test(head);
}
