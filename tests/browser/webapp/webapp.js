// The WebApp that players have today: what it sends, what it reads, when it tries again and when it stops. It knows
// nothing of positions, resume tickets and close codes. What it sees is kept for the test.

// VITE_API_URL and VITE_WS_URL of a WebApp beside its API.
const API_URL = '/api';
const WS_URL = `wss://${location.host}/ws`;
const PING_EVERY_MS = 20_000;
const MAX_ATTEMPTS = 8;
const FIRST_DELAY_MS = 1_500;
const LONGEST_DELAY_MS = 15_000;
const FINAL_ERRORS = ['duel_closed', 'duel_access_denied', 'invalid_ticket'];
const FINAL_TEXTS = ['Не авторизован', 'Доступ запрещён', 'Дуэль уже завершена'];

export class WebApp {
  /** What the WebApp understood: the duel_updates it would render, and why it gave up. */
  updates = [];
  stopped = null;
  /** What came over the wire, as it came. */
  frames = [];
  tickets = [];
  answers = [];
  closes = [];

  #duelId;
  #initData;
  #apiUrl;
  #wsUrl;
  #attempts = 0;

  constructor({ duelId, initData, apiUrl = API_URL, wsUrl = WS_URL }) {
    this.#duelId = duelId;
    this.#initData = initData;
    this.#apiUrl = apiUrl;
    this.#wsUrl = wsUrl;
  }

  async connect() {
    try {
      this.#listen(new WebSocket(`${this.#wsUrl}?${await this.query()}`));
    } catch (error) {
      this.#failed(error.message);
    }
  }

  async query() {
    return `ticket=${encodeURIComponent(await this.#fetchTicket())}`;
  }

  delay(attempts) {
    return Math.min(FIRST_DELAY_MS * 2 ** attempts, LONGEST_DELAY_MS);
  }

  read(message) {
    if (message.type === 'connected') this.#attempts = 0;
    if (message.type === 'duel_update' && message.payload.duel_id) this.updates.push(message);
    if (message.type === 'duel_closed' && message.duel_id === this.#duelId) this.stopped = 'duel_closed';
    if (message.type === 'error' && FINAL_ERRORS.includes(message.message)) this.stopped = message.message;
  }

  async #fetchTicket() {
    const headers = this.#initData ? { 'X-Telegram-Init-Data': this.#initData } : {};
    const response = await fetch(`${this.#apiUrl}/duel/ws-ticket?duel_id=${this.#duelId}`, { headers });
    const answer = await response.json();
    this.answers.push({ requestId: response.headers.get('X-Request-Id'), answer });
    if (!answer.success) throw new Error(answer.error);
    this.tickets.push(answer.data.ticket);
    return answer.data.ticket;
  }

  #listen(socket) {
    const ping = () => socket.send('{"type":"ping"}');
    let pings;
    socket.onopen = () => {
      ping();
      pings = setInterval(ping, PING_EVERY_MS);
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      this.frames.push(message);
      this.read(message);
    };
    socket.onclose = ({ code }) => {
      clearInterval(pings);
      this.closes.push(code);
      this.#retry();
    };
  }

  #failed(text) {
    if (FINAL_TEXTS.some((final) => text.includes(final))) this.stopped = text;
    this.#retry();
  }

  #retry() {
    if (this.stopped) return;
    if (this.#attempts === MAX_ATTEMPTS) {
      this.stopped = 'no attempt is left';
      return;
    }
    setTimeout(() => this.connect(), this.delay(this.#attempts));
    this.#attempts += 1;
  }
}
