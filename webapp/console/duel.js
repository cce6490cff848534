// One duel: how it stands, who is online and how far they have acked, and its log as it grows.

import { Refused, ask } from './hub.js';
import { STATUS } from './duels.js';
import { NONE, bytes, count, dateAndTime, el, plural, setText, timeOfDay, timeWithMs } from './format.js';

const POLL_EVERY_MS = 1000;
/** Events on the page. Older ones are dropped from it. */
const EVENTS_MAX = 300;

export class Duel {
  #id = null;
  #timer;
  #position = null;
  #shown = 0;

  constructor(element) {
    this.title = el('h2', { id: 'duel-title' });
    this.status = el('span', { class: 'pill' });
    this.facts = el('dl', { class: 'facts', 'data-testid': 'duel-facts' });
    this.users = el('tbody', { 'data-testid': 'duel-users' });
    this.usersTable = el('table', {},
      el('caption', { class: 'hidden', text: 'Users who are online' }),
      el('thead', {}, el('tr', {}, ...[['User'], ['Role'], ['Online since', 'wide'], ['Connections here', 'number wide'], ['Acked up to', 'number']]
        .map(([text, name]) => el('th', { scope: 'col', class: name, text })))),
      this.users);
    this.others = el('p', { class: 'none' });
    this.pause = el('button', { type: 'button', 'aria-pressed': 'false', text: 'Pause', onclick: () => this.#togglePause() });
    this.hint = el('p', { class: 'note' });
    this.log = el('ol', { class: 'log', 'data-testid': 'log', 'aria-label': 'Events, the newest first' });
    this.empty = el('p', { class: 'none', text: 'The log is empty.' });
    this.message = el('p', { class: 'card none', role: 'status', 'data-testid': 'duel-message', hidden: true });
    this.content = el('div', { class: 'stack' },
      el('div', { class: 'card' }, this.facts),
      el('section', { 'aria-labelledby': 'users-title' }, el('h3', { id: 'users-title', text: 'Who is online' }),
        el('div', { class: 'card flush' }, this.usersTable, this.others)),
      el('section', { 'aria-labelledby': 'log-title' },
        el('div', { class: 'head' }, el('h3', { id: 'log-title', text: 'Log' }), this.pause), this.hint,
        el('div', { class: 'card flush' }, this.log, this.empty)));
    element.replaceChildren(el('section', { 'aria-labelledby': 'duel-title' },
      el('p', { class: 'back' }, el('a', { href: '#duels', text: '← All duels' })),
      el('div', { class: 'head' }, this.title, this.status), this.message, this.content));
  }

  show(id) {
    this.#id = id;
    this.#position = null;
    this.#shown = 0;
    this.content.hidden = true;
    this.message.hidden = true;
    this.status.hidden = true;
    this.log.replaceChildren();
    setText(this.title, `Duel ${id}`);
    this.#load();
  }

  hide() {
    this.#id = null;
    clearTimeout(this.#timer);
  }

  get #paused() {
    return this.pause.getAttribute('aria-pressed') === 'true';
  }

  #togglePause() {
    const paused = !this.#paused;
    this.pause.setAttribute('aria-pressed', String(paused));
    if (paused) clearTimeout(this.#timer);
    else this.#load();
  }

  async #load() {
    clearTimeout(this.#timer);
    const id = this.#id;
    if (!document.hidden) {
      try {
        const after = this.#position ? `&after=${this.#position.epoch}:${this.#position.seq}` : '';
        const duel = await ask(`duel?id=${encodeURIComponent(id)}${after}`);
        if (id === this.#id) this.#fill(duel);
      } catch (error) {
        if (id === this.#id && error instanceof Refused) this.#refused(error);
      }
    }
    clearTimeout(this.#timer);
    if (this.#id !== null && !this.#paused) this.#timer = setTimeout(() => this.#load(), POLL_EVERY_MS);
  }

  #refused({ status, message }) {
    this.message.hidden = false;
    setText(this.message, status === 400 ? 'A duel’s id is a number from 1 to 9,007,199,254,740,991.' : `${message}.`);
    if (status === 404) {
      this.#position = null;
      this.status.hidden = true;
    }
  }

  #fill(duel) {
    this.message.hidden = true;
    this.content.hidden = false;
    this.status.hidden = false;
    this.status.dataset.state = duel.status;
    setText(this.status, STATUS[duel.status]);
    this.#fillFacts(duel);
    this.#fillUsers(duel);
    this.#fillLog(duel);
  }

  #fillFacts({ position, oldest_seq, participants, connections, created_at_ms, updated_at_ms }) {
    const kept = oldest_seq === 0 ? 'None' : oldest_seq === position.seq ? `${count(position.seq)}` : `${count(oldest_seq)} to ${count(position.seq)}`;
    const facts = [
      ['Position', `${position.epoch}:${position.seq}`, 'mono'],
      ['Events in the log', kept],
      ['Participants', participants === null ? 'Not declared' : participants.join(', ') || 'Declared without any'],
      ['Connections here', count(connections)],
      ['Created', dateAndTime(created_at_ms)],
      ['Last event', updated_at_ms === null ? NONE : dateAndTime(updated_at_ms)],
    ];
    if (this.facts.children.length === 0) {
      this.facts.append(...facts.map(([term, , name]) => el('div', {}, el('dt', { text: term }), el('dd', { class: name }))));
    }
    facts.forEach(([, value], nth) => setText(this.facts.children[nth].lastElementChild, value));
  }

  #fillUsers({ online, online_count, position }) {
    const key = JSON.stringify([online, online_count, position.seq]);
    if (this.users.dataset.key === key) return;
    this.users.dataset.key = key;
    this.users.replaceChildren(...online.map(({ user, role, since_ms, connections, acked_seq }) => {
      const behind = position.seq - acked_seq;
      const acked = acked_seq === 0 ? 'Nothing' : `${count(acked_seq)}${behind > 0 ? ` (${count(behind)} behind)` : ''}`;
      return el('tr', {}, el('th', { scope: 'row', text: user }),
        el('td', { text: role === 'player' ? 'Player' : 'Spectator' }),
        el('td', { class: 'wide', title: dateAndTime(since_ms), text: timeOfDay(since_ms) }),
        el('td', { class: 'number wide', text: count(connections) }),
        el('td', { class: 'number', text: acked }));
    }));
    this.usersTable.hidden = online.length === 0;
    const others = online_count - online.length;
    this.others.hidden = online.length > 0 && others === 0;
    setText(this.others, online.length === 0 ? 'Nobody is online.' : `and ${plural(others, 'other user')}`);
  }

  #fillLog({ events, position, online, production }) {
    if (this.#position && this.#position.epoch !== position.epoch) this.log.prepend(mark('A new epoch begins here', 'epoch'));
    for (const event of events) {
      const expected = this.#shown + 1;
      if (this.#shown > 0 && event.seq > expected) {
        this.log.prepend(mark(`${plural(event.seq - expected, 'event')} came faster than this page reads, and ${event.seq - expected === 1 ? 'is' : 'are'} not shown`));
      }
      if (event.seq > this.#shown) this.log.prepend(entry(event));
      this.#shown = Math.max(this.#shown, event.seq);
    }
    while (this.log.children.length > EVENTS_MAX) this.log.lastElementChild.remove();
    this.#position = { epoch: position.epoch, seq: Math.max(this.#shown, 0) };
    this.empty.hidden = this.log.children.length > 0;
    this.log.hidden = this.log.children.length === 0;
    setText(this.hint, production ? 'The newest first. In production the hub sends no payloads here.'
      : 'The newest first, with payloads, because APP_ENV is development.');
    const acked = Map.groupBy(online.filter(({ acked_seq }) => acked_seq > 0), ({ acked_seq }) => String(acked_seq));
    for (const item of this.log.querySelectorAll('[data-seq]')) {
      const users = acked.get(item.dataset.seq) ?? [];
      setText(item.querySelector('.acked'), users.length > 0 ? `Acked by ${users.map(({ user }) => user).join(', ')}` : '');
    }
  }
}

function mark(text, kind = 'gap') {
  return el('li', { class: 'mark', 'data-kind': kind, text });
}

function entry(event) {
  const { seq, at_ms, type, audience, end } = event;
  const what = end ? `The duel ended: ${STATUS[end].toLowerCase()}` : type;
  const flags = [event.transient && 'transient', event.coalesces && 'coalesces'].filter(Boolean);
  return el('li', { 'data-seq': seq, 'data-end': end },
    el('span', { class: 'seq', text: `${seq}` }),
    el('span', { class: 'type', text: what }),
    el('span', { class: 'size', text: bytes(event.bytes) }),
    el('span', { class: 'meta' },
      el('time', { datetime: new Date(at_ms).toISOString(), title: dateAndTime(at_ms), text: timeWithMs(at_ms) }),
      el('span', { text: end ? 'to everybody' : to(audience) }),
      ...flags.map((text) => el('span', { text })),
      el('span', { class: 'acked' })),
    event.payload ? payload('Payload', event.payload) : null,
    ...(event.views ?? []).map((view) => payload(`View of ${view.user}`, view.payload)));
}

function to({ kind, users }) {
  const named = users?.join(', ');
  return { all: 'to everybody', players: 'to players', only: `to ${named}`, except: `to all but ${named}` }[kind];
}

function payload(label, { text, bytes: size }) {
  const cut = new TextEncoder().encode(text).length < size;
  return el('details', {}, el('summary', {}, el('span', { class: 'label', text: label }), el('code', { text })),
    el('pre', { text: cut ? `${text}…` : pretty(text) }),
    cut ? el('p', { class: 'note', text: `The beginning of ${bytes(size)}.` }) : null);
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
