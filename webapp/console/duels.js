// The duels, a page at a time: all of them in the order of their ids, or those that somebody is in.

import { Refused, ask } from './hub.js';
import { count, el, plural, setText } from './format.js';

export const STATUS = { open: 'Open', finished: 'Finished', cancelled: 'Cancelled' };
const POLL_EVERY_MS = 2000;

const FILTERS = [
  ['live=true', 'With somebody on this node'],
  ['', 'All'],
  ['status=open', 'Open'],
  ['status=finished', 'Finished'],
  ['status=cancelled', 'Cancelled'],
];

export class Duels {
  /** The ids after which the pages before this one began. */
  #before = [];
  #after = null;
  #next = null;
  #timer;
  #shown = false;

  constructor(element) {
    this.filter = el('select', { id: 'filter', onchange: () => this.#first() },
      ...FILTERS.map(([value, text]) => el('option', { value, text })));
    this.search = el('input', { id: 'search', inputmode: 'numeric', pattern: '[0-9]+', autocomplete: 'off', placeholder: '77' });
    this.form = el('form', { class: 'toolbar', onsubmit: (event) => this.#find(event) },
      el('div', { class: 'field' }, el('label', { for: 'filter', text: 'Show' }), this.filter),
      el('div', { class: 'field' }, el('label', { for: 'search', text: 'Find a duel by its id' }),
        el('div', { class: 'field-row' }, this.search, el('button', { type: 'submit', text: 'Open' }))));
    this.count = el('p', { class: 'note', 'data-testid': 'duel-count' });
    this.rows = el('tbody', { 'data-testid': 'duel-rows' });
    this.table = el('table', { class: 'duels' },
      el('caption', { class: 'hidden', text: 'Duels' }),
      el('thead', {}, el('tr', {}, ...[['Duel'], ['Status'], ['Events', 'number'], ['Online'], ['Connections here', 'number wide']]
        .map(([text, name]) => el('th', { scope: 'col', class: name, text })))),
      this.rows);
    this.message = el('p', { class: 'none', role: 'status', 'data-testid': 'duels-message' });
    this.first = el('button', { type: 'button', text: 'First page', onclick: () => this.#first() });
    this.previous = el('button', { type: 'button', text: 'Previous', onclick: () => this.#turn(this.#before.pop() ?? null) });
    this.following = el('button', { type: 'button', text: 'Next', onclick: () => {
      this.#before.push(this.#after);
      this.#turn(this.#next);
    } });
    element.replaceChildren(el('section', { 'aria-labelledby': 'duels-title' },
      el('h2', { id: 'duels-title', text: 'Duels' }), this.form, this.count,
      el('div', { class: 'card flush' }, this.table, this.message),
      el('div', { class: 'pager' }, this.first, this.previous, this.following)));
  }

  show() {
    this.#shown = true;
    this.#load();
  }

  hide() {
    this.#shown = false;
    clearTimeout(this.#timer);
  }

  /** Says how many there are in all. */
  draw({ node }) {
    if (!node) return;
    const { duelhub_duels: held, duelhub_live_duels: live } = node.samples;
    setText(this.count, `${plural(held, 'duel')} held, somebody of this node in ${count(live)}.`);
  }

  #find(event) {
    event.preventDefault();
    if (this.search.value) location.hash = `#duel/${this.search.value}`;
  }

  #first() {
    this.#before = [];
    this.#turn(null);
  }

  #turn(after) {
    this.#after = after;
    this.#load();
  }

  get #query() {
    return [this.filter.value, this.#after && `after=${this.#after}`].filter(Boolean).join('&');
  }

  async #load() {
    clearTimeout(this.#timer);
    const query = this.#query;
    if (!document.hidden) {
      try {
        const page = await ask(`duels?${query}`);
        // Meanwhile another page may have been asked for.
        if (query === this.#query) this.#fill(page);
      } catch (error) {
        // A hub that does not answer is told at the top of the page.
        if (error instanceof Refused) this.#say(`${error.message}.`);
      }
    }
    clearTimeout(this.#timer);
    if (this.#shown) this.#timer = setTimeout(() => this.#load(), POLL_EVERY_MS);
  }

  #say(text) {
    setText(this.message, text);
    this.message.hidden = text === '';
  }

  #fill({ duels, next }) {
    this.#next = next;
    const key = JSON.stringify(duels);
    if (this.rows.dataset.key !== key) {
      // A row that has the focus keeps it.
      const focused = this.rows.contains(document.activeElement) ? document.activeElement.hash : null;
      this.rows.dataset.key = key;
      this.rows.replaceChildren(...duels.map(row));
      if (focused) [...this.rows.querySelectorAll('a')].find(({ hash }) => hash === focused)?.focus();
    }
    this.#say(duels.length > 0 ? '' : this.filter.value === 'live=true' ? 'Nobody is connected to this node.'
      : this.#after ? 'There are no further duels.' : 'There are none.');
    this.table.hidden = duels.length === 0;
    this.first.disabled = this.#after === null;
    this.previous.disabled = this.#after === null;
    this.following.disabled = next === null;
  }
}

function row({ duel, status, position, online, users, connections }) {
  const named = users.map(({ user, role }) => (role === 'player' ? `${user}` : `${user} (looks on)`));
  const more = online - users.length;
  const names = named.length === 0 ? 'Nobody' : [...named, more > 0 ? `${count(more)} more` : null].filter(Boolean).join(', ');
  return el('tr', {},
    el('th', { scope: 'row' }, el('a', { href: `#duel/${duel}`, text: duel })),
    el('td', {}, el('span', { class: 'pill', 'data-state': status, text: STATUS[status] })),
    el('td', { class: 'number', title: `Position ${position.epoch}:${position.seq}`, text: count(position.seq) }),
    el('td', { class: named.length === 0 ? 'soft' : null, text: names }),
    el('td', { class: 'number wide', text: count(connections) }));
}
