// A player's network, which can be cut: what connect() of the package is given instead of the browser's WebSocket.
//
// Cutting it closes the open socket under the client, as a phone that loses its network does, and no new one is opened until the
// network is back. What is seen then, the attempts to connect again and what was missed, is the work of the package and of the hub.

const NOTICES = ['onopen', 'onmessage', 'onclose', 'onerror'];

/** RFC 6455, section 7.1.5: there was no close frame. */
const ABNORMAL = 1006;

export class Network {
  isCut = false;
  /** The WebSocket of this network. */
  WebSocket;
  #sockets = new Set();

  constructor() {
    const network = this;
    this.WebSocket = class extends CuttableSocket {
      constructor(url, protocols) {
        const socket = network.isCut ? null : new WebSocket(url, protocols);
        super(socket);
        if (!socket) return;
        network.#sockets.add(this);
        socket.addEventListener('close', () => network.#sockets.delete(this));
      }
    };
  }

  cut() {
    this.isCut = true;
    for (const socket of this.#sockets) socket.cut();
  }

  bringBack() {
    this.isCut = false;
  }
}

class CuttableSocket {
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  #socket;

  /** `socket` is null if there is no network. */
  constructor(socket) {
    this.#socket = socket;
    if (!socket) return void setTimeout(() => this.#lose());
    for (const name of NOTICES) socket[name] = (event) => this[name]?.(event);
  }

  get protocol() {
    return this.#socket?.protocol ?? '';
  }

  send(data) {
    this.#socket?.send(data);
  }

  close(code, reason) {
    this.#socket?.close(code, reason);
  }

  cut() {
    for (const name of NOTICES) this.#socket[name] = null;
    this.#socket.close();
    this.#lose();
  }

  #lose() {
    this.onerror?.(new Event('error'));
    this.onclose?.({ code: ABNORMAL, reason: '' });
  }
}
