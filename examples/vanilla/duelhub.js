// @duelhub/client. Made from clients/js/src by clients/js/build.mjs: change it there.


// src/backoff.ts
var FIRST_DELAY_MS = 1e3;
function pause(failures, maxMs) {
  return Math.random() * Math.min(maxMs, FIRST_DELAY_MS * 2 ** Math.min(failures, 16));
}

// src/clock.ts
var RESOLUTION_MS = 1;
var DRIFT = 5e-5;
var SAMPLES_MAX = 16;
var JUMP_MS = 250;
var wallNow = () => Date.now() - performance.now();
var ServerClock = class {
  #samples = [];
  /** Notes that the hub said `serverTimeMs` between `sentAt` and now. */
  sample(sentAt, serverTimeMs) {
    const at = performance.now();
    const error = (at - sentAt + RESOLUTION_MS) / 2;
    const offset = serverTimeMs + RESOLUTION_MS / 2 - (sentAt + at) / 2;
    this.#samples = [...this.#samples.slice(1 - SAMPLES_MAX), { offset, error, at, wall: wallNow() }];
  }
  /** Returns the hub's time minus `Date.now()`, and how far off that may be: infinite until the hub has said its time. */
  get reading() {
    const now = performance.now();
    const wall = wallNow();
    const errorOf = ({ error, at, wall: then }) => Math.abs(wall - then) > JUMP_MS ? Infinity : error + (now - at) * DRIFT;
    let best = this.#samples.at(-1);
    if (!best) return { offsetMs: 0, uncertaintyMs: Infinity };
    for (const sample of this.#samples) if (errorOf(sample) < errorOf(best)) best = sample;
    return { offsetMs: best.offset - wall, uncertaintyMs: errorOf(best) };
  }
};

// src/emitter.ts
var Emitter = class {
  #listeners = {};
  /** Returns the function that removes the listener. */
  on(name, listener) {
    const listeners = this.#listeners[name] ??= /* @__PURE__ */ new Set();
    const own = (value) => listener(value);
    listeners.add(own);
    return () => void listeners.delete(own);
  }
  clear() {
    this.#listeners = {};
  }
  emit(name, value) {
    for (const listener of [...this.#listeners[name] ?? []]) {
      try {
        listener(value);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
};

// src/ending.ts
var LOST = 1006;
var lost = (message) => ({ code: LOST, message, error: null });
var WORDS = {
  4001: "ticket_expired",
  4002: "ticket_already_used",
  4501: "invalid_ticket",
  4502: "duel_access_denied",
  4503: "duel_closed",
  4504: "connection_replaced"
};
function wordOf({ code, error }) {
  return error?.message ?? WORDS[code] ?? "";
}
function isFinal({ code, error }) {
  return error?.retry === void 0 ? code >= 4500 && code <= 4999 : !error.retry;
}
function isUnanswered({ code, error }) {
  return code === LOST && !error;
}

// src/page.ts
function watchPage({ sleep, wake }) {
  if (typeof document === "undefined") return () => {
  };
  const shown = () => {
    if (document.visibilityState === "visible") wake();
  };
  const rows = [
    [window, "pagehide", sleep],
    [document, "freeze", sleep],
    [window, "pageshow", wake],
    [document, "resume", wake],
    [window, "online", wake],
    [window, "offline", wake],
    [document, "visibilitychange", shown]
  ];
  for (const [target, name, listener] of rows) target.addEventListener(name, listener);
  const telegram = window.Telegram?.WebApp;
  telegram?.onEvent?.("activated", wake);
  return () => {
    for (const [target, name, listener] of rows) target.removeEventListener(name, listener);
    telegram?.offEvent?.("activated", wake);
  };
}

// src/session.ts
var Session = class {
  /** The duel, once it is known. */
  duelId;
  /** Good until its successor was used, so it may be shown again and again. */
  ticket = null;
  #epoch = "";
  /** `null`: no frame has said it yet. */
  #seq = null;
  constructor(duelId) {
    this.duelId = duelId;
  }
  /** The value of the parameter `resume`. `null`: there is no position to come back to. */
  get resume() {
    return this.#seq === null ? null : `${this.#epoch}:${this.#seq}`;
  }
  connected(frame) {
    this.duelId = frame.duel_id;
    this.#epoch = frame.epoch;
    if (!frame.recovered) this.#seq = null;
    this.#renew(frame);
  }
  /** Notes the position and the ticket of any other frame. Returns whether its `seq` is new. */
  advance(frame) {
    this.#renew(frame);
    const { seq } = frame;
    if (seq === void 0 || this.#seq !== null && seq <= this.#seq) return false;
    this.#seq = seq;
    return true;
  }
  #renew({ resume_ticket }) {
    if (resume_ticket) this.ticket = resume_ticket;
  }
  save() {
    const { duelId, ticket } = this;
    return duelId && ticket ? { duelId, ticket, epoch: this.#epoch, seq: this.#seq } : null;
  }
  /** Takes up what was saved, unless it is of another duel. */
  restore(saved) {
    if (saved.duelId !== (this.duelId ?? saved.duelId)) return;
    this.duelId = saved.duelId;
    this.ticket = saved.ticket;
    this.#epoch = saved.epoch;
    this.#seq = saved.seq;
  }
};

// src/storage.ts
function save(key, session) {
  try {
    if (session) sessionStorage.setItem(key, JSON.stringify(session));
    else sessionStorage.removeItem(key);
  } catch {
  }
}
function take(key) {
  try {
    const saved = JSON.parse(sessionStorage.getItem(key));
    sessionStorage.removeItem(key);
    return typeof saved?.ticket === "string" ? saved : null;
  } catch {
    return null;
  }
}

// src/tickets.ts
var Tickets = class {
  #session;
  /** One of the backend's that the hub has not answered. */
  #unused = null;
  #last = null;
  /** Whether a refused ticket led to a fresh one since the hub last let us in. */
  #renewed = false;
  /** One whose connection ended without a welcome: the hub may still let it in, and close its successor for it. */
  #unanswered = null;
  constructor(session) {
    this.#session = session;
  }
  /** Begins with what the page before has left. It may have ended before the hub's answer. */
  restored() {
    this.#unanswered = this.#session.ticket;
  }
  /** The one that is at hand. `null`: the backend has to be asked. */
  get atHand() {
    const { ticket } = this.#session;
    if (ticket !== null) return { value: ticket, single: false };
    return this.#unused === null ? null : { value: this.#unused, single: true };
  }
  fetched(value) {
    this.#unused = value;
  }
  /** The last one, to be shown again for the end of the duel. */
  get forTheEnd() {
    return this.#last && { ...this.#last, again: true };
  }
  shown(ticket) {
    this.#last = ticket;
  }
  welcomed() {
    this.#renewed = false;
  }
  /** A connection ended without the hub's answer. `opened`: the hub has had the ticket. */
  unanswered({ ticket, opened }) {
    if (ticket === this.#session.ticket) this.#unanswered = ticket;
    else if (opened) this.#unused = null;
  }
  /** Returns whether a connection by the same ticket, which we had given up, may have replaced this one. */
  replacedByOwn({ value }) {
    const own = this.#unanswered === value;
    this.#unanswered = null;
    return own;
  }
  /** The hub refuses it. Returns whether to fetch another one: at once, later, or not at all. */
  refused(ticket, { final, wasOnline }) {
    if (final && (this.#renewed || ticket.single && !wasOnline)) return "never";
    this.#session.ticket = this.#unused = null;
    if (ticket.again) this.#last = null;
    const when = this.#renewed ? "later" : "at once";
    this.#renewed = true;
    return when;
  }
};

// src/frames.ts
function parse(data) {
  try {
    const frame = JSON.parse(data);
    return typeof frame?.type === "string" ? frame : null;
  } catch {
    return null;
  }
}

// src/transport.ts
var PROTOCOL = "duelhub.v1";
var PROBE_MS = 2500;
var SILENCE_MAX_MS = 75e3;
var EARLY_PINGS_MS = [300, 1200];
var HELD_UP_MS = 1e3;
var Transport = class {
  /** Whether the handshake was answered. From then on a single-use ticket may be used up. */
  opened = false;
  ticket;
  #options;
  #socket;
  #startedAt = performance.now();
  #error = null;
  #heardAt = 0;
  /** When the pings that are not answered yet were sent. */
  #pings = [];
  #timers = /* @__PURE__ */ new Set();
  #deadline = null;
  /** Throws what the WebSocket throws for an address that is none. */
  constructor(options) {
    this.#options = options;
    this.ticket = options.ticket;
    const socket = this.#socket = new options.WebSocket(options.url, [PROTOCOL, options.ticket]);
    socket.onopen = () => {
      if (socket.protocol !== PROTOCOL) this.#end(lost("The server is no duelhub"));
      this.opened = true;
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => {
      this.#end({ code, message: reason, error: this.#error });
    };
    socket.onerror = () => {
    };
  }
  send(frame) {
    try {
      this.#socket.send(JSON.stringify(frame));
    } catch {
    }
  }
  /** Begins to look after the connection, which the hub has accepted. */
  keepAlive({ server_time_ms }) {
    this.#options.clock.sample(this.#startedAt, server_time_ms);
    this.#ping();
    for (const ms of EARLY_PINGS_MS) this.#after(ms, () => this.#ping());
    const { pingIntervalMs } = this.#options;
    const repeat = () => {
      this.#ping();
      this.#after(pingIntervalMs, repeat);
    };
    this.#after(pingIntervalMs, repeat);
  }
  /** There is reason to doubt: the hub has to answer at once. Ends the connection if an answer is overdue. */
  probe() {
    const now = performance.now();
    const overdue = now - (this.#pings[0] ?? now) > this.#options.pongTimeoutMs || now - this.#heardAt > SILENCE_MAX_MS;
    if (overdue) this.#expect(0);
    else this.#ping(PROBE_MS);
  }
  /** Ends it, without a further word. */
  close() {
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#calm();
    try {
      socket.close(1e3);
    } catch {
    }
  }
  #receive(data) {
    this.#heardAt = performance.now();
    this.#calm();
    const frame = parse(data);
    if (!frame) return;
    if (frame.type === "error") this.#error = frame;
    if (frame.type === "pong") {
      const sentAt = this.#pings.shift();
      if (sentAt !== void 0) this.#options.clock.sample(sentAt, frame.server_time_ms);
    }
    this.#options.onFrame(frame);
  }
  #ping(timeoutMs = this.#options.pongTimeoutMs) {
    this.#pings.push(performance.now());
    this.send({ type: "ping" });
    this.#expect(timeoutMs);
  }
  /** Something has to be heard within so many milliseconds. */
  #expect(ms) {
    const at = performance.now() + ms;
    if (this.#deadline && this.#deadline.at <= at) return;
    this.#calm();
    const missed = () => {
      this.#deadline = null;
      if (performance.now() - at > HELD_UP_MS) this.#expect(PROBE_MS);
      else this.#end(lost("The hub does not answer"));
    };
    this.#deadline = { timer: setTimeout(missed, ms), at };
  }
  #calm() {
    if (this.#deadline) clearTimeout(this.#deadline.timer);
    this.#deadline = null;
  }
  #after(ms, then) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      then();
    }, ms);
    this.#timers.add(timer);
  }
  #end(end) {
    this.close();
    this.#options.onEnd(end);
  }
};

// src/duel.ts
var STABLE_MS = 1e4;
var WAKE_PAUSE_MS = 1e3;
var WATCHED_MS = 5e3;
var WANTED_MAX_MS = 36e5;
var ACK_PAUSE_MS = 250;
var NOT_EVENTS = ["connected", "presence", "duel_closed", "pong", "error"];
var Duel = class {
  #options;
  #emitter = new Emitter();
  #clock = new ServerClock();
  #session;
  #tickets;
  #unwatch;
  #state = { name: "connecting" };
  #userId;
  #online = [];
  /** What is under way: a ticket being fetched, or a connection. */
  #fetching = null;
  #transport = null;
  /** The end of what is under way, or of the pause before it. */
  #timer;
  #startedAt = -Infinity;
  #onlineAt = 0;
  #wokenAt = -Infinity;
  /** Failures in a row. */
  #failures = 0;
  /** The hub wants no connection before this (`performance.now()`). */
  #notBefore = 0;
  /** Newest position of the log when the hub let us in. */
  #head = 0;
  #recovered = null;
  #acked = 0;
  #ackDue = false;
  #ackTimer;
  /** @internal */
  constructor(options) {
    this.#options = { ...options, connectTimeoutMs: options.connectTimeoutMs ?? 1e4, maxDelayMs: options.maxDelayMs ?? 2e4 };
    this.#session = new Session(options.duelId);
    this.#tickets = new Tickets(this.#session);
    this.#unwatch = watchPage({ sleep: () => this.#sleep(), wake: () => this.wake() });
    queueMicrotask(() => {
      if (this.#state.name === "closed") return;
      const saved = options.storageKey && take(options.storageKey);
      if (saved) this.#session.restore(saved);
      this.#tickets.restored();
      this.#attempt();
    });
  }
  /** How the connection is. The object is a new one after each change. */
  get state() {
    return this.#state;
  }
  /** The users who are online, as far as is known. The array is a new one after each change. */
  get online() {
    return this.#online;
  }
  /** The user that the ticket is for, once connected. */
  get userId() {
    return this.#userId;
  }
  /** The duel, once it is known. */
  get duelId() {
    return this.#session.duelId;
  }
  /** The hub's clock: its time minus `Date.now()`, and how far off that may be. Infinite: the hub has not said its time yet. */
  get clock() {
    return this.#clock.reading;
  }
  /** Returns the hub's time, in milliseconds since the Unix epoch. `clock` says how exact it is. */
  serverNow() {
    return Date.now() + this.#clock.reading.offsetMs;
  }
  /** Calls `listener` from now on. Returns the function that ends that. A listener that throws stops no other one. */
  on(name, listener) {
    return this.#emitter.on(name, listener);
  }
  /** Tells the backend that the app has everything up to the event `seq`. Only the newest is sent, and again after a reconnect. */
  ack(seq) {
    if (seq <= this.#acked) return;
    this.#acked = seq;
    this.#ackDue = true;
    this.#sendAck();
  }
  /**
   * Says that the app is in the foreground again: tries now instead of later, and asks the hub for a sign of life. Pages need not
   * call it; React Native does when its AppState becomes active.
   */
  wake() {
    const now = this.#wokenAt = performance.now();
    if (this.#state.name === "online") this.#transport?.probe();
    if (this.#state.name !== "waiting") return;
    const at = Math.max(now, this.#notBefore, this.#startedAt + WAKE_PAUSE_MS);
    const { nextAttemptAt, why } = this.#state;
    if (nextAttemptAt === null || nextAttemptAt > Date.now() + (at - now)) this.#wait(at - now, why);
  }
  /** Ends it for good. Nothing is left behind. */
  close() {
    this.#finish("closed_by_app");
  }
  // What is under way
  async #attempt() {
    this.#stop();
    this.#keep(null);
    this.#startedAt = performance.now();
    const { atHand } = this.#tickets;
    const fetching = this.#fetching = new AbortController();
    this.#become({ name: "connecting" });
    if (fetching.signal.aborted) return;
    if (atHand) return this.#open(atHand);
    this.#timer = setTimeout(() => this.#retry("The ticket takes too long"), this.#options.connectTimeoutMs);
    try {
      const value = await this.#options.ticket({ signal: fetching.signal });
      this.#tickets.fetched(value);
      if (!fetching.signal.aborted) this.#open({ value, single: true });
    } catch (error) {
      if (!fetching.signal.aborted) this.#ticketFailed(error);
    }
  }
  #ticketFailed(error) {
    const { final, code, retryAfterMs, message } = Object(error);
    const { forTheEnd } = this.#tickets;
    if (code === "duel_closed" && forTheEnd) {
      this.#open(forTheEnd);
    } else if (final) {
      this.#finish("ticket_refused", { error });
    } else {
      this.#retry(message ?? String(error), retryAfterMs);
    }
  }
  #open(ticket) {
    this.#stop();
    this.#tickets.shown(ticket);
    const { WebSocket = globalThis.WebSocket, connectTimeoutMs, pingIntervalMs = 15e3, pongTimeoutMs = 8e3 } = this.#options;
    const onEnd = (end) => this.#ended(end, ticket);
    try {
      this.#transport = new Transport({
        url: this.#address(),
        ticket: ticket.value,
        WebSocket,
        clock: this.#clock,
        pingIntervalMs,
        pongTimeoutMs,
        onFrame: (frame) => this.#receive(frame),
        onEnd
      });
    } catch (error) {
      return this.#retry(String(error));
    }
    this.#timer = setTimeout(() => onEnd(lost("The connection takes too long")), connectTimeoutMs);
  }
  #address() {
    const { resume } = this.#session;
    let { url } = this.#options;
    if (url.startsWith("/")) url = location.origin.replace("http", "ws") + url;
    return resume === null ? url : `${url}${url.includes("?") ? "&" : "?"}resume=${resume}`;
  }
  /** Ends what is under way. */
  #stop() {
    clearTimeout(this.#timer);
    this.#fetching?.abort();
    if (this.#transport && this.#state.name === "connecting") this.#tickets.unanswered(this.#transport);
    this.#transport?.close();
    this.#fetching = this.#transport = null;
  }
  // Frames
  #receive(frame) {
    if (frame.type === "connected") return this.#welcome(frame);
    if (this.#state.name !== "online") return;
    const isNew = this.#session.advance(frame);
    const { type, seq, payload, duel_id, user_id } = frame;
    const { duelId } = this.#session;
    if (type === "presence" && duel_id === duelId) this.#notePresence(user_id, frame.online === true);
    const delivery = seq > this.#head ? "live" : this.#recovered ? "replayed" : "state";
    if (type === "duel_closed" && duel_id === duelId) {
      this.#emitter.emit("duel_closed", { seq, status: frame.status, delivery });
    }
    if (!isNew || NOT_EVENTS.includes(type) || payload?.duel_id !== duelId) return;
    this.#emitter.emit("event", { type, seq, payload, delivery });
  }
  #welcome(frame) {
    const { duel_id: duelId, user_id: userId, recovered, online, head } = frame;
    if (duelId !== (this.#session.duelId ?? duelId)) return this.#finish("wrong_duel");
    clearTimeout(this.#timer);
    this.#session.connected(frame);
    this.#tickets.welcomed();
    this.#onlineAt = performance.now();
    this.#userId = userId;
    this.#online = online;
    this.#head = head;
    this.#recovered = recovered;
    if (recovered) this.#ackDue = this.#acked > 0;
    else this.#acked = 0;
    this.#become({ name: "online" });
    this.#emitter.emit("connected", { duelId, userId, recovered, online });
    this.#transport?.keepAlive(frame);
    this.#sendAck();
  }
  #notePresence(userId, online) {
    const others = this.#online.filter((id) => id !== userId);
    this.#online = online ? [...others, userId] : others;
    this.#emitter.emit("presence", { userId, online });
  }
  #sendAck() {
    if (!this.#ackDue || this.#ackTimer !== void 0 || this.#state.name !== "online") return;
    this.#ackDue = false;
    this.#transport?.send({ type: "ack", seq: this.#acked });
    this.#ackTimer = setTimeout(() => {
      this.#ackTimer = void 0;
      this.#sendAck();
    }, ACK_PAUSE_MS);
  }
  // Ends
  #ended(end, ticket) {
    const word = wordOf(end);
    const wasOnline = this.#state.name === "online";
    if (wasOnline && performance.now() - this.#onlineAt > STABLE_MS) this.#failures = 0;
    if (!isUnanswered(end)) this.#transport = null;
    if (word === "connection_replaced" && this.#tickets.replacedByOwn(ticket)) {
      this.#retry("The connection was replaced", 0);
    } else if (word.includes("ticket")) {
      const another = this.#tickets.refused(ticket, { final: isFinal(end), wasOnline });
      if (another === "never") this.#finish(word);
      else this.#retry("The ticket is used up", another === "at once" ? 0 : void 0);
    } else if (isFinal(end)) {
      this.#finish(word || "stopped", end.message && end.message !== word ? { message: end.message } : {});
    } else {
      this.#retry(word || end.message || "The connection is lost", end.error?.retry_after_ms);
    }
  }
  #retry(why, wantedMs) {
    const { maxDelayMs } = this.#options;
    const afterMs = wantedMs >= 0 ? Math.min(wantedMs, WANTED_MAX_MS) : void 0;
    this.#notBefore = afterMs === void 0 ? 0 : performance.now() + afterMs;
    const watched = this.#failures === 0 && performance.now() - this.#wokenAt < WATCHED_MS;
    this.#wait(afterMs ?? (watched ? 0 : pause(this.#failures, maxDelayMs)), why);
    this.#failures += 1;
  }
  #wait(ms, why) {
    this.#stop();
    this.#timer = setTimeout(() => void this.#attempt(), ms);
    this.#become({ name: "waiting", nextAttemptAt: Date.now() + ms, why });
  }
  /** The page may be gone for good, and its socket would keep it from being kept. */
  #sleep() {
    this.#keep(this.#session.save());
    this.#stop();
    this.#become({ name: "waiting", nextAttemptAt: null, why: "The page sleeps" });
  }
  #keep(session) {
    const { storageKey } = this.#options;
    if (storageKey) save(storageKey, session);
  }
  #finish(reason, more = {}) {
    if (this.#state.name === "closed") return;
    this.#stop();
    this.#keep(null);
    this.#unwatch();
    clearTimeout(this.#ackTimer);
    this.#online = [];
    this.#become({ name: "closed", reason, ...more });
    this.#emitter.clear();
  }
  #become(state) {
    this.#state = state;
    this.#emitter.emit("state", state);
  }
};
function connect(options) {
  return new Duel(options);
}

// src/ticket.ts
var FINAL = [400, 401, 403, 409];
async function fetchTicket({ duelId, initData, apiUrl = "/api", signal }) {
  const response = await fetch(`${apiUrl}/duel/ws-ticket?duel_id=${duelId}`, {
    headers: { "X-Telegram-Init-Data": initData },
    // A route without Cache-Control may be answered by the browser on the way back, with a ticket that is used.
    cache: "no-store",
    signal: signal ?? null
  });
  const answer = await response.json().catch(() => ({}));
  if (typeof answer.data?.ticket === "string") return answer.data.ticket;
  const { status, headers } = response;
  const retryAfter = headers.get("Retry-After");
  const facts = {
    status,
    code: answer.code,
    requestId: answer.request_id,
    final: FINAL.includes(status),
    ...retryAfter && { retryAfterMs: Number(retryAfter) * 1e3 }
  };
  throw Object.assign(new Error(answer.error ?? `HTTP ${status}`), facts);
}
export {
  connect,
  fetchTicket
};
