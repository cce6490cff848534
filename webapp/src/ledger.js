// The log: a row per event, with what the backend pushed and what each player received of it, and when.

import { duration, eventName, ordinal, seen } from './words.js';

const SAMPLES_KEPT = 50;
const LINES_KEPT = 200;

const HOW = {
  live: ['', 'live: it was just pushed'],
  state: ['on joining', 'state: the duel as it stood when the player came'],
  replayed: ['replayed', 'replayed: it was pushed while the player was away'],
  waiting: ['not yet', 'The player is away. It is replayed once the player is back'],
  passed: ['–', 'It was not for this player, or it was superseded before the player was back'],
};

export class Ledger {
  #players; // panels
  #onSelect; // (row) => void
  #rows = new Map(); // seq → row
  #body;
  #box;
  #medians;
  #samples;
  #replays; // how many were replayed since the player came back
  #selected = null;

  /** `box` is the scrolled element that the table goes to. */
  constructor(box, players, { canPush, onSelect }) {
    this.#box = box;
    this.#players = players;
    this.#onSelect = onSelect;
    this.#samples = players.map(() => []);
    this.#replays = players.map(() => 0);
    this.#medians = players.map(() => element('span', 'median'));
    const heads = players.map(({ name }, index) => {
      const head = element('th', '', name);
      head.scope = 'col';
      head.append(this.#medians[index]);
      return head;
    });
    const backend = element('th', 'made', canPush ? 'Backend' : 'Event');
    backend.scope = 'col';
    if (canPush) backend.append(element('span', 'median', 'answered after'));
    const top = element('tr');
    top.append(backend, ...heads);
    const head = element('thead');
    head.append(top);
    this.#body = element('tbody');
    const table = element('table');
    table.append(head, this.#body);
    box.replaceChildren(table);
    // A screen that is turned, or a keyboard that comes up: the newest is what one looks at.
    new ResizeObserver(() => this.#toTheEnd()).observe(box);
  }

  get nameOf() {
    return (userId) => this.#players.find((player) => player.userId === userId)?.name ?? `user ${userId}`;
  }

  /** Notes that the page's call made the event `seq`: { call, pressedAt, answeredAt, hubMs, epoch, name }. */
  pushed(seq, push) {
    const row = this.#row(seq);
    Object.assign(row, push);
    this.#render(row);
    for (const index of row.received.keys()) this.#sample(row, index);
  }

  /** Notes that a player received an event at `at` (performance.now()). */
  received(index, event, at) {
    const row = this.#row(event.seq);
    row.event ??= event;
    const nth = event.delivery === 'replayed' ? (this.#replays[index] += 1) : 0;
    row.received[index] = { event, at, nth };
    this.#sample(row, index);
    this.#render(row);
    // Events come in order: what was before this one and has not come does not come any more.
    for (const earlier of this.#rows.values()) {
      if (earlier.seq >= event.seq || earlier.received[index]) continue;
      earlier.received[index] = null;
      this.#render(earlier);
    }
  }

  /** Begins to count what is replayed to a player. */
  cameBack(index) {
    this.#replays[index] = 0;
  }

  /** A line about a player's connection. */
  note(index, text, title) {
    const line = element('tr', 'note');
    line.append(element('td'), ...this.#players.map((_, seat) => element('td', '', seat === index ? text : '')));
    line.cells[index + 1].title = title;
    this.#append(line);
  }

  /** No call of the page is under way: what has no call by now was pushed by somebody else. Returns whether there is such an event. */
  settle() {
    const strangers = [...this.#rows.values()].filter((row) => !row.call && row.event && !row.isForeign);
    for (const row of strangers) {
      row.isForeign = true;
      row.call = rebuilt(row, this.#players);
      this.#render(row);
    }
    return strangers.some(({ received }) => received.some((each) => each?.event.delivery === 'live'));
  }

  /** Marks a row as the one whose call is shown; null for none. */
  select(seq) {
    const before = this.#selected;
    this.#selected = seq;
    for (const each of [before, seq]) if (this.#rows.has(each)) this.#render(this.#rows.get(each));
  }

  /** Shows what players have not received yet; for when one of them comes or goes. */
  refresh() {
    for (const row of this.#rows.values()) if (row.received.some((each) => each === undefined)) this.#render(row);
  }

  #row(seq) {
    const known = this.#rows.get(seq);
    if (known) return known;
    const row = { seq, line: element('tr'), received: this.#players.map(() => undefined) };
    row.line.dataset.seq = seq;
    row.button = element('button', 'event');
    row.button.type = 'button';
    row.button.addEventListener('click', () => row.call && this.#onSelect(row));
    this.#rows.set(seq, row);
    this.#render(row);
    this.#append(row.line);
    return row;
  }

  #append(line) {
    this.#body.append(line);
    if (this.#body.rows.length > LINES_KEPT) {
      const [oldest] = this.#body.rows;
      this.#rows.delete(Number(oldest.dataset.seq));
      oldest.remove();
    }
    this.#toTheEnd();
  }

  #toTheEnd() {
    this.#box.scrollTop = this.#box.scrollHeight;
  }

  #render(row) {
    const { seq, line, button, isForeign, answeredAt, pressedAt, hubMs, epoch } = row;
    row.name ??= row.event && eventName(row.event, this.nameOf);
    if (button.textContent !== row.name) button.textContent = row.name ?? '';
    button.setAttribute('aria-pressed', seq === this.#selected);
    button.title = 'Show its call';
    const [cell, made] = flowing('made');
    const number = element('span', 'seq', seq);
    number.title = `seq ${seq}${epoch ? `, epoch ${epoch}` : ''}`;
    const time = element('span', 'ms', isForeign ? 'elsewhere' : duration(answeredAt - pressedAt));
    if (isForeign) {
      time.classList.add('foreign');
      time.title = 'Pushed from elsewhere: by a terminal, or another page';
    }
    if (hubMs) time.title = `From the press to the answer. In the hub itself: ${duration(hubMs)}`;
    made.append(number, button, time);
    const hadFocus = document.activeElement === button;
    line.replaceChildren(cell, ...this.#players.map((player, index) => this.#cell(row, player, index)));
    if (hadFocus) button.focus();
  }

  #cell(row, player, index) {
    const received = row.received[index];
    const kind = received ? received.event.delivery : received === null ? 'passed' : player.isOnline ? 'coming' : 'waiting';
    const [cell, got] = flowing('got');
    cell.dataset.kind = kind;
    if (kind === 'coming') return cell;
    const [words, title] = HOW[kind];
    const how = element('span', 'how', kind === 'replayed' ? `${words} ${ordinal(received.nth)}` : words);
    how.title = title;
    got.append(element('span', 'saw', received ? seen(received.event, player.userId, this.nameOf) : ''), how);
    if (received && kind !== 'state') {
      // Of what was pushed elsewhere nobody here knows when.
      const time = element('span', 'ms', row.isForeign && kind === 'live' ? 'received' : duration(received.at - row.pressedAt));
      time.title = row.isForeign ? 'When it was pushed is not known here' : 'From the press to the event in the page';
      time.classList.toggle('foreign', time.textContent === 'received');
      got.append(time);
    }
    return cell;
  }

  #sample(row, index) {
    const received = row.received[index];
    if (row.pressedAt === undefined || received?.event.delivery !== 'live' || received.isSampled) return;
    received.isSampled = true;
    const samples = (this.#samples[index] = [...this.#samples[index], received.at - row.pressedAt].slice(-SAMPLES_KEPT));
    this.#medians[index].textContent = `median ${duration(median(samples))}`;
  }
}

/** The call that makes an event which somebody else pushed, as far as it can be told from what the players received. */
function rebuilt({ event, received }, players) {
  if (event.type === 'duel_closed') {
    return { method: 'CloseDuel', request: { duelId: event.duelId, status: `DUEL_STATUS_${event.status.toUpperCase()}` } };
  }
  const duelId = event.payload?.duel_id;
  if (!duelId) return null;
  const bodies = received.map((each) => each && stripped(each.event.payload));
  const [payload = {}] = bodies.filter(Boolean);
  const request = { duelId, ...(event.type !== 'duel_update' && { type: event.type }), payload };
  const differ = bodies.some((body) => body && JSON.stringify(body) !== JSON.stringify(payload));
  if (differ) request.views = bodies.flatMap((body, index) => (body ? [{ userId: players[index].userId, payload: body }] : []));
  return { method: 'PushEvent', request };
}

function stripped({ duel_id: _, ...fields }) {
  return fields;
}

function median(samples) {
  const sorted = samples.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 ? sorted[Math.floor(middle)] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** A cell, and the line within it. */
function flowing(className) {
  const cell = element('td', className);
  const line = element('div', 'flow');
  cell.append(line);
  return [cell, line];
}

function element(tag, className = '', text = '') {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}
