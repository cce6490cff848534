// How the node does: whether it is ready, and ten minutes of charts.

import { Chart, STEPS } from './chart.js';
import { bytes, count, el, milliseconds, perSecond, percent, plural, setText, span, timeOfDay } from './format.js';
import { words } from './words.js';

const ENGINES = { embedded: 'Embedded store', memory: 'Memory', redis: 'Redis' };
/** Lines of a chart by reason. Further reasons stand in its table alone. */
const REASONS_DRAWN = 4;
const REASONS_LISTED = 6;

const line = (label, key, nth) => ({ label, value: (row) => row[key], color: `series-${nth}` });

const TRAFFIC = [
  [{ id: 'connections', title: 'Connections', format: count, steps: STEPS.whole, least: 2 },
    [line('Players and spectators', 'connections', 1)]],
  [{ id: 'rates', title: 'Pushes and deliveries', format: perSecond, steps: STEPS.decimal, least: 1 },
    [line('Pushes stored', 'pushes', 1), line('Deliveries', 'deliveries', 2)]],
  [{ id: 'latency', title: 'Push latency', format: milliseconds, steps: STEPS.milliseconds, least: 0.1,
    note: 'p50 and p99: from a push to its answer, out of buckets that each reach twice as far. Probe: from a push of the node’s own to its delivery.' },
    [line('p50', 'p50', 1), line('p99', 'p99', 2), line('Probe', 'probe', 3)]],
];

const DUELS = [{ id: 'duels', title: 'Duels', format: count, steps: STEPS.whole, least: 2 },
  [line('Held', 'duels', 1), line('With somebody here', 'liveDuels', 2)]];
const SESSIONS = [{ id: 'sessions', title: 'Sessions remembered', format: count, steps: STEPS.whole, least: 2,
  note: 'While a ticket of theirs may live.' }, [line('Sessions and revocations', 'sessions', 1)]];

const ENGINE = {
  embedded: [DUELS,
    [{ id: 'commits', title: 'Commits', format: perSecond, steps: STEPS.decimal, least: 1 },
      [line('Commits', 'commits', 1), line('Failed', 'failures', 2)]],
    [{ id: 'disk', title: 'Store on the disk', format: bytes, steps: STEPS.bytes, least: 1024 ** 2 },
      [line('Size', 'disk', 1)]]],
  redis: [DUELS, SESSIONS,
    [{ id: 'repairs', title: 'Repairs', format: perSecond, steps: STEPS.decimal, least: 1,
      note: 'Duels of which messages were missed and found by the sweep.' }, [line('Duels repaired', 'repairs', 1)]]],
  memory: [DUELS, SESSIONS],
};

const PROCESS = [
  [{ id: 'cpu', title: 'CPU', format: percent, steps: STEPS.decimal, least: 5, note: '100 % is one core.' },
    [line('This process', 'cpu', 1)]],
  [{ id: 'memory', title: 'Memory', format: bytes, steps: STEPS.bytes, least: 1024 ** 2 }, [line('Resident', 'memory', 1)]],
  [{ id: 'descriptors', title: 'Open descriptors', format: count, steps: STEPS.whole, least: 2 }, [line('Open', 'descriptors', 1)]],
];

const REASONS = [
  ['refused', 'Handshakes refused'],
  ['closed', 'Connections closed'],
  ['limits', 'Limits reached'],
];

export class Overview {
  #charts = [];
  #tables = [];
  #engine = null;

  constructor(element) {
    this.state = el('p', { class: 'health-state', 'data-testid': 'health' });
    this.why = el('p', { class: 'health-why', 'data-testid': 'health-why' });
    this.facts = el('dl', { class: 'facts' });
    this.notes = el('ul', { class: 'notes' });
    this.engineGrid = el('div', { class: 'grid' });
    element.replaceChildren(
      section('health', 'Health', el('div', { class: 'card health' }, this.state, this.why, this.facts, this.notes)),
      section('traffic', 'Traffic', this.#grid(TRAFFIC)),
      section('reasons', 'Turned away and closed', this.#reasons()),
      section('engine', 'Engine', this.engineGrid),
      section('process', 'Process', this.#grid(PROCESS)));
  }

  #grid(charts) {
    return el('div', { class: 'grid' }, ...charts.map(([options, lines]) => this.#chart(options, () => lines)));
  }

  #chart(options, lines) {
    const chart = new Chart(options);
    this.#charts.push({ chart, lines });
    return chart.element;
  }

  #reasons() {
    return el('div', { class: 'grid' }, ...REASONS.map(([family, title]) => {
      const lines = (history) => history.counted(family).filter(({ inWindow }) => inWindow > 0).slice(0, REASONS_DRAWN)
        .map(({ word }, nth) => ({ label: words(word), title: word, color: `series-${nth + 1}`,
          value: (row) => row.rates?.[family][word] ?? null }));
      const element = this.#chart({ id: family, title, format: perSecond, steps: STEPS.decimal, least: 1 }, lines);
      this.#tables.push({ family, element: this.#charts.at(-1).chart.body, title });
      return element;
    }));
  }

  /** Draws the history up to `now`, by the hub's clock. Unless the hub is `live`, nobody knows how it does now. */
  draw(history, now, live) {
    const { node } = history;
    if (!node) return;
    if (this.#engine !== node.engine) {
      this.#engine = node.engine;
      const charts = ENGINE[node.engine] ?? ENGINE.memory;
      this.engineGrid.replaceChildren(...charts.map(([options, lines]) => this.#chart(options, () => lines)));
    }
    this.#health(node, history, live);
    for (const { chart, lines } of this.#charts) chart.draw(history, lines(history), now);
    for (const table of this.#tables) fill(table, history);
  }

  #health({ health, engine, samples, ...node }, history, live) {
    const [state, text, why] = live ? standing(health)
      : ['unknown', 'Unknown', `${standing(health)[1]} when the hub answered last, at ${timeOfDay(node.at_ms)}.`];
    this.state.dataset.state = state;
    setText(this.state, text);
    setText(this.why, why);
    const facts = [
      ['Engine', ENGINES[engine] ?? engine],
      ...(engine === 'embedded' ? storeFacts(samples) : []),
      ['Up for', span(node.uptime_ms)],
      ['Sessions remembered', count(samples.duelhub_remembered_tickets)],
      ['Descriptors open', `${count(samples.process_open_fds)} of ${count(samples.process_max_fds)}`],
      ['Backends connected', count(samples.duelhub_control_connections)],
      ['Version', `${node.version} (${node.revision})`],
    ];
    if (samples.duelhub_log_lines_lost_total > 0) facts.push(['Lines of the log lost', count(samples.duelhub_log_lines_lost_total)]);
    if (this.facts.children.length !== facts.length) {
      this.facts.replaceChildren(...facts.map(() => el('div', {}, el('dt'), el('dd'))));
    }
    facts.forEach(([term, value], nth) => {
      setText(this.facts.children[nth].firstElementChild, term);
      setText(this.facts.children[nth].lastElementChild, value);
    });
    const notes = history.notes.map(({ at, text }) => `${timeOfDay(at)}  ${text}`);
    if (notes.join() !== [...this.notes.children].map(({ textContent }) => textContent).join()) {
      this.notes.replaceChildren(...notes.map((text) => el('li', { text })));
    }
  }
}

/** How ready a node is: its colour, the word, and what is in its way. */
function standing({ state, why, probe_ms }) {
  switch (state) {
    case 'ready':
      return ['good', 'Ready', `A push reaches its delivery in ${milliseconds(probe_ms)}.`];
    case 'stopping':
      return ['warn', 'Stopping', 'Players are told when to come back, and no socket is accepted any more.'];
    default:
      return ['bad', 'Not ready', `${why.replace(/^./, (letter) => letter.toUpperCase())}.`];
  }
}

function storeFacts(samples) {
  const takes = samples.duelhub_store_usable === 1 ? 'Takes pushes' : 'Takes none';
  return [
    ['Store', `${takes}, ${bytes(samples.duelhub_store_bytes)}`],
    ['Commits failed', count(samples.duelhub_store_failures_total)],
    ['Calls that wait for it', count(samples.duelhub_store_waiting)],
  ];
}

function section(id, title, content) {
  return el('section', { 'aria-labelledby': `${id}-title` }, el('h2', { id: `${id}-title`, text: title }), content);
}

/** The reasons of a family: how often in the window, and since the hub started. */
function fill({ family, element, title }, history) {
  const counted = history.counted(family);
  const seen = history.last.at - history.rows[0].at;
  const key = JSON.stringify([counted, span(seen)]);
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  if (counted.length === 0) {
    element.replaceChildren(el('p', { class: 'none', text: 'None since the hub started' }));
    return;
  }
  const rows = counted.slice(0, REASONS_LISTED).map(({ word, inWindow, total }) =>
    el('tr', { class: inWindow === 0 ? 'quiet-row' : null },
      el('th', { scope: 'row', title: word, text: words(word) }), el('td', { text: count(inWindow) }), el('td', { text: count(total) })));
  const more = counted.length - REASONS_LISTED;
  element.replaceChildren(el('table', { class: 'reasons' },
    el('caption', { class: 'hidden', text: `${title} by reason` }),
    el('thead', {}, el('tr', {}, el('th', { scope: 'col', text: 'Reason' }),
      el('th', { scope: 'col', text: `Last ${span(seen)}` }), el('th', { scope: 'col', text: 'Since start' }))),
    el('tbody', {}, ...rows)),
  more > 0 ? el('p', { class: 'none', text: `and ${plural(more, 'other reason')}` }) : '');
}
