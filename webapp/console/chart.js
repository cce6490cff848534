// One chart: its title, its lines with their present values, and the last minutes. Nothing is smoothed: a line joins samples that
// follow each other, and where samples are missing there is no line.

import uPlot from './vendor/uPlot.esm.js';

import { NONE, el, setText, timeOfDay } from './format.js';

const HEIGHT = 132;
const AXIS_WIDTH = 64;
/** All charts have one crosshair. */
const CROSSHAIR = uPlot.sync('console');
const charts = new Set();
/** The sample that the keyboard has chosen, by its time: in every chart. */
let visited = null;
const scheme = matchMedia('(prefers-color-scheme: dark)');

const powers = (base, count, factors = [1]) =>
  Array.from({ length: count }, (_, power) => factors.map((factor) => factor * base ** power)).flat();

/** Distances between the marks of an axis. */
export const STEPS = {
  whole: powers(10, 9, [1, 2, 5]),
  decimal: [0.1, 0.2, 0.5, ...powers(10, 9, [1, 2, 5])],
  milliseconds: [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, ...powers(10, 6, [1, 2, 5])],
  bytes: powers(2, 42),
};

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** The colours of the theme as they are now: canvases know no custom properties. */
function resolved(name) {
  const probe = document.body.appendChild(el('span', { hidden: true }));
  probe.style.color = `var(${name})`;
  const rgb = getComputedStyle(probe).color;
  probe.remove();
  return rgb;
}

let palette = null;
scheme.addEventListener('change', () => { palette = null; });
const paint = (name) => {
  palette ??= new Map();
  if (!palette.has(name)) palette.set(name, resolved(name));
  return palette.get(name);
};

/** Samples that stand alone have no line, so they are points. */
function alone(plot, series) {
  const values = plot.data[series];
  const isThere = (at) => values[at] !== null && values[at] !== undefined;
  return [...values.keys()].filter((at) => isThere(at) && !isThere(at - 1) && !isThere(at + 1));
}

export class Chart {
  #plot = null;
  #lines = [];
  #history = null;
  #cursor = null;

  /**
   * `format` writes a value with its unit. `steps` are the distances that the axis may have between its marks. The axis reaches to
   * `least` at least. `note` says what a reader may not know.
   */
  constructor({ title, format, steps, least, note, id }) {
    this.title = title;
    this.format = format;
    this.steps = steps;
    this.least = least;
    this.heading = el('h3', { id: `chart-${id}`, text: title });
    this.legend = el('ul', { class: 'legend' });
    this.surface = el('div', { class: 'plot', role: 'slider', tabindex: 0, 'aria-labelledby': `chart-${id}`, 'aria-valuemin': 0,
      onkeydown: (event) => this.#step(event), onblur: () => this.#leave() });
    charts.add(this);
    this.body = el('div', { class: 'chart-extra' });
    this.element = el('article', { class: 'card chart', 'aria-labelledby': `chart-${id}`, 'data-testid': `chart-${id}` },
      this.heading, this.legend, this.surface, note ? el('p', { class: 'note', text: note }) : null, this.body);
    new ResizeObserver(() => this.#fit()).observe(this.surface);
    scheme.addEventListener('change', () => this.#plot?.redraw(false, true));
  }

  /** Draws `lines`, each `{ label, value(row), color }`, over the rows of `history`, up to `now` by the hub's clock. */
  draw(history, lines, now) {
    this.#history = history;
    const labels = lines.map(({ label }) => label).join();
    if (labels !== this.#lines.map(({ label }) => label).join() || !this.#plot) this.#begin(lines, now);
    this.#lines = lines;
    const times = history.rows.map(({ at }) => at / 1000);
    const series = lines.map(({ value }) => history.rows.map((row) => (row.gap ? null : value(row) ?? null)));
    this.now = now / 1000;
    this.window = history.windowUpTo(now) / 1000;
    this.#plot?.setData([times, ...series]);
    this.#point();
  }

  /** Puts the crosshair on a sample, and keeps it there as time passes: for those who use the keyboard. */
  #visit(row) {
    visited = row?.at ?? null;
    for (const chart of charts) chart.#point();
  }

  #leave() {
    if (visited === null) return;
    this.#visit(null);
    for (const chart of charts) chart.#plot?.setCursor({ left: -10, top: -10 });
  }

  #step(event) {
    const rows = (this.#history?.rows ?? []).filter((row) => !row.gap);
    const last = rows.length - 1;
    const at = visited === null ? last : rows.findIndex((row) => row.at === visited);
    const next = { ArrowLeft: at - 1, ArrowRight: at + 1, PageDown: at - 30, PageUp: at + 30, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.#visit(rows[Math.min(Math.max(next, 0), last)]);
  }

  /** Draws the crosshair where the keyboard has put it, if it has. */
  #point() {
    if (visited !== null) this.#plot?.setCursor({ left: this.#plot.valToPos(visited / 1000, 'x'), top: 0 });
    this.#tell();
  }

  #begin(lines) {
    this.#plot?.destroy();
    this.#plot = null;
    this.#lines = lines;
    this.legend.replaceChildren(...lines.map(({ label, color: name, title }) =>
      el('li', { title }, el('span', { class: `swatch ${name}`, 'aria-hidden': 'true' }), el('span', { class: 'name', text: label }),
        el('span', { class: 'value' }))));
    this.legend.classList.toggle('single', lines.length === 1);
    if (this.surface.clientWidth === 0) return;
    this.#plot = new uPlot(this.#options(lines), [[], ...lines.map(() => [])], this.surface);
  }

  #options(lines) {
    const axis = { stroke: () => paint('--soft'), grid: { stroke: () => paint('--line'), width: 1 }, ticks: { show: false },
      font: `11px ${color('--sans')}` };
    return {
      width: this.surface.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 6, 0, 0],
      cursor: {
        y: false,
        sync: { key: CROSSHAIR.key },
        drag: { x: false, y: false },
        points: { size: 6, width: 1, fill: () => paint('--surface') },
      },
      scales: {
        x: { time: true, range: () => [this.now - this.window, this.now] },
        // From 0, so that a change looks as large as it is.
        y: { range: (_plot, _min, max) => [0, Math.max(this.least, (max ?? 0) * 1.1)] },
      },
      axes: [
        { ...axis, size: 26, gap: 8, space: 90, values: (_plot, ticks) => ticks.map((at) => (at % 60 ? timeOfDay(at * 1000) : timeOfDay(at * 1000).slice(0, 5))),
          incrs: [30, 60, 120, 300] },
        { ...axis, size: AXIS_WIDTH, gap: 6, space: 28, values: (_plot, ticks) => ticks.map((value) => this.format(value)),
          incrs: this.steps },
      ],
      series: [{}, ...lines.map(({ color: name }) => ({
        stroke: () => paint(`--${name}`),
        width: 1.5,
        spanGaps: false,
        points: { show: true, size: 3, width: 0, fill: () => paint(`--${name}`), filter: (plot, series) => alone(plot, series) },
      }))],
      hooks: { setCursor: [(plot) => { this.#cursor = plot.cursor.idx ?? null; this.#tell(); }] },
    };
  }

  /** Says the values at the crosshair, or else the newest. */
  #tell() {
    const rows = this.#history?.rows ?? [];
    const chosen = visited === null ? this.#cursor ?? -1 : rows.findIndex((row) => row.at === visited);
    const at = rows[chosen] ? chosen : rows.length - 1;
    const row = rows[at];
    const isPast = at !== rows.length - 1;
    const texts = this.#lines.map(({ value }) => (row && !row.gap ? this.format(value(row)) : NONE));
    texts.forEach((text, nth) => setText(this.legend.children[nth].lastElementChild, text));
    const time = isPast && row ? timeOfDay(row.at) : '';
    this.heading.dataset.time = time;
    const values = this.#lines.map(({ label }, nth) => `${label} ${texts[nth]}`).join(', ');
    const state = { 'aria-valuemax': Math.max(rows.length - 1, 0), 'aria-valuenow': Math.max(at, 0),
      'aria-valuetext': `${time || 'Now'}: ${values || 'nothing'}` };
    for (const [name, value] of Object.entries(state)) this.surface.setAttribute(name, value);
  }

  #fit() {
    const width = this.surface.clientWidth;
    if (width === 0) return;
    if (!this.#plot && this.#history) this.draw(this.#history, this.#lines, this.now * 1000);
    else this.#plot?.setSize({ width, height: HEIGHT });
  }
}
