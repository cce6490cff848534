// An app that keeps what its user sees. The address says what it does: `?app={…}`.

import { connect, fetchTicket } from '/duelhub.js';

const { duel: duelId, initData, usedTicket, options } = JSON.parse(new URLSearchParams(location.search).get('app'));
const SEEN = 'seen'; // over reloads, for nobody sees less because of them

const app = (window.app = {
  states: [], connected: [], presence: [], closed: [], page: [],
  seen: JSON.parse(sessionStorage.getItem(SEEN) ?? '[]'),
  tickets: 0, // asked for
});
const note = (list, what) => list.push({ at: Date.now(), ...what });

// As properties: the client's listeners are counted.
window.onpageshow = ({ persisted }) => note(app.page, { event: 'pageshow', persisted });
window.ononline = () => note(app.page, { event: 'online' });
window.onoffline = () => note(app.page, { event: 'offline' });
document.onvisibilitychange = () => note(app.page, { event: document.visibilityState });
document.onfreeze = () => note(app.page, { event: 'freeze' });

async function ticket({ signal }) {
  app.tickets += 1;
  if (usedTicket && app.tickets === 1) return usedTicket;
  return fetchTicket({ duelId, initData, signal });
}

const duel = (window.duel = connect({ duelId, ticket, ...options }));
duel.on('state', ({ name, why, reason, nextAttemptAt, error }) =>
  note(app.states, { name, why, reason, nextAttemptAt, error: error && { code: error.code, text: String(error) } }));
duel.on('connected', (connected) => note(app.connected, connected));
duel.on('presence', (presence) => note(app.presence, presence));
duel.on('duel_closed', (closed) => note(app.closed, closed));
duel.on('event', ({ type, seq, payload: { n }, delivery }) => {
  note(app.seen, { type, seq, n, delivery });
  sessionStorage.setItem(SEEN, JSON.stringify(app.seen));
});
