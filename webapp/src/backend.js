// Where tickets and pushes come from: a development hub, or, in a Vite build, the real ticket API.

import { fetchTicket } from '../vendor/duelhub.js';

// Vite replaces `import.meta.env`; served as it is, the page has none.
const env = import.meta.env ?? {};
const API_URL = env.VITE_API_URL;
const SOCKET_URL = env.VITE_WS_URL || '/ws';
const DEMO_NAMES = ['Ada', 'Linus'];

/** Codes of refused tickets that do not change by asking again. */
const FINAL_CODES = ['failed_precondition', 'permission_denied', 'invalid_argument'];

/**
 * The duel to show: { id, url, seats, terminal }. A seat is a player: { name, userId, ticket }. `terminal` is how a terminal reaches
 * the control plane, { control, tokenNeeded }; null if this page cannot push.
 */
export function openDuel() {
  return API_URL ? realDuel() : demoDuel();
}

/**
 * Calls the control plane, with the very request that the page shows as a curl line. Returns the answer, and how many milliseconds
 * the call took the hub, as the hub measured it.
 */
export async function call({ method, request }, signal) {
  const { answer, headers } = await post(method, request, signal);
  return { answer, hubMs: Number(headers.get('Server-Timing')?.match(/dur=([\d.]+)/)?.[1]) };
}

async function demoDuel() {
  const { duelId, players, control, tokenNeeded } = (await post('duel', {})).answer;
  const participants = players.map((userId) => ({ userId }));
  // A duel of an earlier run of the hub, that was finished, begins anew.
  await call({ method: 'OpenDuel', request: { duelId, participants, reopen: true } });
  const seats = players.map((userId, index) => ({
    name: DEMO_NAMES[index],
    userId,
    ticket: async ({ signal }) =>
      (await call({ method: 'IssueTicket', request: { duelId, userId } }, signal)).answer.ticket,
  }));
  return { id: duelId, url: SOCKET_URL, seats, terminal: { control, tokenNeeded } };
}

async function realDuel() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const id = Number(fragment.get('duel') ?? new URLSearchParams(location.search).get('duel'));
  // Telegram itself hands initData over in the fragment, so its script is not needed for this.
  const own = window.Telegram?.WebApp?.initData || fragment.get('tgWebAppData');
  const players = [fragment.get('init1') || own, fragment.get('init2')].filter(Boolean);
  if (!id || players.length === 0) {
    throw new Error('Open this page from Telegram with ?duel=…, or add #init1=…&init2=…&duel=… to its address.');
  }
  const seats = players.map((initData, index) => ({
    name: `Player ${index + 1}`,
    userId: null, // known once connected
    ticket: ({ signal }) => fetchTicket({ duelId: id, initData, apiUrl: API_URL, signal }),
  }));
  return { id, url: SOCKET_URL, seats, terminal: null };
}

async function post(name, body, signal) {
  const options = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body), signal };
  const response = await fetch(`/demo/api/${name}`, options).catch((cause) => {
    throw new Error('The hub cannot be reached', { cause });
  });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return { answer, headers: response.headers };
  throw refusal(response, answer);
}

/** An error with what the client package asks of one (TicketError). */
function refusal({ status, headers }, { code, message, error, details = [] }) {
  const reason = details.map(({ debug }) => debug?.reason).find(Boolean);
  const facts = [reason ?? code, headers.get('X-Request-Id') && `request ${headers.get('X-Request-Id')}`].filter(Boolean).join(', ');
  return Object.assign(new Error(`${message ?? error ?? `HTTP ${status}`}${facts && ` (${facts})`}`), {
    final: FINAL_CODES.includes(code),
    code: reason === 'DUEL_CLOSED' ? 'duel_closed' : code,
  });
}
