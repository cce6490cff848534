// Numbers and times as people read them, and elements of the page. Every number has its unit.

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const fraction = (digits) => new Intl.NumberFormat('en', { maximumFractionDigits: digits });
const [one, two] = [fraction(1), fraction(2)];
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const dateAndClock = new Intl.DateTimeFormat('en-GB', {
  year: 'numeric', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit',
});

/** What stands where there is no value. */
export const NONE = '–';

const known = (format) => (value) => (value === null || value === undefined ? NONE : format(value));

const short = (value) => {
  if (value >= 100 || Number.isInteger(value)) return grouped.format(value);
  return (value >= 10 ? one : two).format(value);
};

export const count = known((value) => grouped.format(value));
export const perSecond = known((value) => `${short(value)}/s`);
export const percent = known((value) => `${(value >= 10 ? grouped : one).format(value)} %`);

export const milliseconds = known((value) => {
  if (value === 0) return '0 ms';
  if (value >= 1000) return `${two.format(value / 1000)} s`;
  return value >= 1 ? `${short(value)} ms` : `${grouped.format(value * 1000)} µs`;
});

export const bytes = known((value) => {
  if (value < 1024) return `${grouped.format(value)} B`;
  if (value < 1024 ** 2) return `${short(value / 1024)} KiB`;
  if (value < 1024 ** 3) return `${short(value / 1024 ** 2)} MiB`;
  return `${short(value / 1024 ** 3)} GiB`;
});

/** A span of time in at most two units. */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 && minutes < 10 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export const timeOfDay = (ms) => clock.format(ms);
export const timeWithMs = (ms) => `${clock.format(ms)}.${String(Math.floor(ms % 1000)).padStart(3, '0')}`;
export const dateAndTime = (ms) => dateAndClock.format(ms);
export const plural = (number, word, words = `${word}s`) => `${count(number)} ${number === 1 ? word : words}`;

/**
 * An element with attributes and children. `class`, `text` and what begins with `on` are what they say; an attribute that is
 * null, undefined or false is left out.
 */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === 'text') element.textContent = value;
    else if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets a text only if it has changed, so that a selection in it stays. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
