// How things are called on the page.

const STATES = { connecting: 'Connecting', online: 'Online', waiting: 'Connecting again' };

const ENDINGS = {
  duel_closed: 'Duel is over',
  duel_access_denied: 'Not let in',
  invalid_ticket: 'Ticket refused',
  ticket_refused: 'No ticket',
  connection_replaced: 'Opened elsewhere',
  closed_by_app: 'Closed',
};

/** The state of a connection, as the client package has it. */
export function stateWords({ name, reason }) {
  return name === 'closed' ? ENDINGS[reason] ?? 'Closed' : STATES[name];
}

/** The same, as the package says it, for those who want to look it up. */
export function rawState({ name, why, reason, message }) {
  return [name, why ?? reason, message].filter(Boolean).join(': ');
}

/** A time as a person reads it: 0.4 ms, 240 ms, 5.3 s. */
export function duration(ms) {
  if (!Number.isFinite(ms)) return '';
  if (ms < 99.95) return `${ms.toFixed(1)}\u00a0ms`;
  return ms < 999.5 ? `${Math.round(ms)}\u00a0ms` : `${(ms / 1000).toFixed(1)}\u00a0s`;
}

export function ordinal(n) {
  const tens = n % 100;
  const suffix = tens > 10 && tens < 14 ? 'th' : { 1: 'st', 2: 'nd', 3: 'rd' }[n % 10] ?? 'th';
  return `${n}${suffix}`;
}

/** What an event is called. `nameOf` gives a user's name. */
export function eventName({ type, payload = {} }, nameOf) {
  if (type === 'duel_closed') return 'Duel is over';
  if (payload.finished) return 'Result';
  if (!Array.isArray(payload.options)) return String(payload.question ?? payload.text ?? type);
  const last = payload.answered?.at(-1);
  return last === undefined ? `Question ${payload.round}` : `${nameOf(last)} answered`;
}

/** What the player `userId` learns from an event. */
export function seen({ type, payload = {} }, userId, nameOf) {
  if (type === 'duel_closed') return 'the end';
  if (payload.finished) {
    const { own, other } = points(payload.scores, userId);
    return `${own > other ? 'won' : own < other ? 'lost' : 'a draw'}, ${own} : ${other}`;
  }
  if (!Array.isArray(payload.options)) return 'as pushed';
  const last = payload.answered?.at(-1);
  if (last === undefined) return 'the question';
  if (last !== userId) return `that ${nameOf(last)} answered`;
  const { choice, correct } = payload.you ?? {};
  return `own answer: ${choice === correct ? 'right' : 'wrong'}`;
}

export function points(scores = {}, userId) {
  const other = Object.keys(scores).find((id) => id !== String(userId));
  return { own: scores[userId] ?? 0, other: scores[other] ?? 0 };
}
