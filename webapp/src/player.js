// One player's connection: ticket, WebSocket, ping, resume and reconnect.

const PING_EVERY_MS = 20_000;
const MAX_ATTEMPTS = 8;
const FIRST_DELAY_MS = 1_500;
const LONGEST_DELAY_MS = 15_000;
const STOP_WORDS = new Set(['duel_closed', 'duel_access_denied', 'invalid_ticket']);
const TICKET_WORDS = new Set(['invalid_ticket', 'ticket_expired', 'ticket_already_used']);
const NOT_EVENTS = new Set(['connected', 'pong', 'presence', 'error']);

export class Player {
  state = 'offline'; // connecting, online, offline or closed
  detail = '';
  userId = null;
  position = null; // { epoch, seq }: where to go on from, or null
  recovered = null;
  online = new Set();

  #fetchTicket;
  #socketUrl;
  #onChange;
  #onFrame;
  #epoch = '';
  #attempts = 0;
  #attempt = null; // AbortController: one abort ends the fetch, the socket and the timers of an attempt
  #resumeTicket = null;
  #lastTicket = null; // fetches the end of a duel once, when no other ticket can be had
  #refusal = '';
  #head = 0;
  #retryAfterMs = null; // when the hub wants this client back
  #ponged = false;

  /**
   * @param fetchTicket (signal) => Promise<string>; an error with `final` set ends the attempts
   * @param socketUrl   (ticket, position) => string
   * @param onChange    () => void, after any public field changed
   * @param onFrame     (frame, kind) => void; an event's kind is `live`, `state` or `replayed`, else it is empty
   */
  constructor({ fetchTicket, socketUrl, onChange, onFrame }) {
    this.#fetchTicket = fetchTicket;
    this.#socketUrl = socketUrl;
    this.#onChange = onChange;
    this.#onFrame = onFrame;
  }

  /** Whether it is connected or still trying. */
  get active() {
    return this.#attempt !== null;
  }

  connect() {
    this.#attempts = 0;
    this.#open();
  }

  drop() {
    this.#end('offline', 'Network dropped');
  }

  async #open() {
    this.#attempt?.abort();
    const attempt = (this.#attempt = new AbortController());
    this.#refusal = '';
    this.#retryAfterMs = null;
    this.#become('connecting');
    try {
      const ticket = this.#resumeTicket ?? (await this.#fetchTicketOrEnd(attempt.signal));
      if (attempt.signal.aborted) return;
      this.#lastTicket = ticket;
      this.#listen(new WebSocket(this.#socketUrl(ticket, this.position)), attempt.signal, ticket);
    } catch (error) {
      if (attempt.signal.aborted) return;
      if (error.final) this.#end('closed', error.message);
      else this.#retry(error.message);
    }
  }

  /** A closed duel issues no tickets. Whoever has one from before its end gets what they missed by it. */
  async #fetchTicketOrEnd(signal) {
    const last = this.#lastTicket;
    this.#lastTicket = null;
    try {
      return await this.#fetchTicket(signal);
    } catch (error) {
      if (error.code === 'duel_closed' && last) return last;
      throw error;
    }
  }

  #listen(socket, signal, ticket) {
    const ping = () => {
      if (socket.readyState === WebSocket.OPEN) socket.send('{"type":"ping"}');
    };
    const pings = setInterval(ping, PING_EVERY_MS);
    signal.addEventListener('abort', () => {
      clearInterval(pings);
      socket.close();
    });
    socket.addEventListener('open', ping, { signal });
    socket.addEventListener('message', ({ data }) => this.#receive(JSON.parse(data)), { signal });
    socket.addEventListener('close', ({ code }) => this.#lost(code, ticket), { signal });
  }

  #receive(frame) {
    const kind = NOT_EVENTS.has(frame.type) ? '' : this.#kindOf(frame.seq);
    if (frame.resume_ticket) this.#resumeTicket = frame.resume_ticket;
    if (frame.type === 'connected') this.#welcome(frame);
    else this.#advance(frame.seq);
    if (frame.type === 'pong') this.#ponged = true;
    if (frame.type === 'presence') this.online[frame.online ? 'add' : 'delete'](frame.user_id);
    if (frame.type === 'error') {
      this.#refusal = frame.message;
      this.#retryAfterMs = frame.retry_after_ms ?? null;
    }
    if (frame.type === 'duel_closed') this.#refusal = frame.type;
    this.#onFrame(frame, kind);
    this.#onChange();
  }

  #welcome({ user_id, epoch, head, recovered, online }) {
    this.#attempts = 0;
    this.#head = head;
    this.#ponged = false;
    this.userId = user_id;
    this.recovered = recovered;
    this.online = new Set(online);
    // The rule: `recovered: true` keeps the position, under the epoch of this frame; otherwise it is forgotten.
    this.#epoch = epoch;
    this.position = recovered ? { ...this.position, epoch } : null;
    this.#become('online');
  }

  #advance(seq) {
    if (seq !== undefined && !(seq <= this.position?.seq)) this.position = { epoch: this.#epoch, seq };
  }

  #kindOf(seq) {
    if (seq <= this.#head) return this.recovered ? 'replayed' : 'state';
    // The pong to the ping sent on open comes after what was already waiting.
    return this.recovered && !this.#ponged ? 'replayed' : 'live';
  }

  #lost(code, ticket) {
    if (ticket === this.#resumeTicket && TICKET_WORDS.has(this.#refusal)) {
      // Only the resume ticket was refused (the hub's secret changed, say); a fresh one may still do.
      this.#resumeTicket = null;
      this.#retry(this.#refusal);
    } else if (STOP_WORDS.has(this.#refusal) || (code >= 4500 && code <= 4999)) {
      this.#end('closed', this.#refusal || `Closed by the hub (${code})`);
    } else {
      this.#retry(this.#refusal || 'Connection lost');
    }
  }

  #retry(reason) {
    if (this.#attempts === MAX_ATTEMPTS) return this.#end('offline', `${reason}; gave up`);
    const delay = this.#retryAfterMs ?? Math.min(FIRST_DELAY_MS * 2 ** this.#attempts, LONGEST_DELAY_MS);
    this.#attempts += 1;
    this.#attempt.abort();
    const attempt = (this.#attempt = new AbortController());
    const timer = setTimeout(() => this.#open(), delay);
    attempt.signal.addEventListener('abort', () => clearTimeout(timer));
    this.#become('offline', `${reason}; try ${this.#attempts} of ${MAX_ATTEMPTS} in ${delay / 1000} s`);
  }

  #end(state, detail) {
    this.#attempt?.abort();
    this.#attempt = null;
    this.#become(state, detail);
  }

  #become(state, detail = '') {
    this.state = state;
    this.detail = detail;
    this.#onChange();
  }
}
