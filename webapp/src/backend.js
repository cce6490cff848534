// Where tickets and pushes come from: the hub's development endpoints, or, in a Vite build, the real ticket API.

// Vite replaces `import.meta.env`; served as it is, the page has none.
const env = import.meta.env ?? {};
const API_URL = env.VITE_API_URL;
const WS_URL = env.VITE_WS_URL || `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`;
const DEMO_NAMES = ['Ada', 'Linus'];
const FINAL_STATUSES = new Set([401, 403, 409]);

/**
 * The duel to show: its id, one seat per player ({ name, userId, fetchTicket }), the grpcurl line if there is
 * one, whether this page created it and whether it can push to it.
 */
export function openDuel() {
  return API_URL ? realDuel() : demoDuel();
}

export function socketUrl(ticket, position) {
  const resume = position ? `&resume=${position.epoch}:${position.seq}` : '';
  return `${WS_URL}?ticket=${encodeURIComponent(ticket)}${resume}`;
}

export const push = (body) => post('push', body);
export const close = (body) => post('close', body);

async function demoDuel() {
  const { duel_id, players, grpcurl } = await post('duel', {});
  const seats = players.map(({ user_id }, index) => ({
    name: DEMO_NAMES[index],
    userId: user_id,
    fetchTicket: async (signal) => (await post('ticket', { duel_id, user_id }, signal)).ticket,
  }));
  return { id: duel_id, seats, grpcurl, created: true, canPush: true };
}

async function realDuel() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const id = Number(fragment.get('duel') ?? new URLSearchParams(location.search).get('duel'));
  const seats = identities(fragment).map((headers, index) => ({
    name: `Player ${index + 1}`,
    userId: null, // known once connected
    fetchTicket: async (signal) => {
      const answer = await request(`${API_URL}/duel/ws-ticket?duel_id=${id}`, { headers, signal });
      return answer.data.ticket;
    },
  }));
  if (!id || seats.length === 0) {
    throw new Error('Open this page from Telegram with ?duel=…, or add #init1=…&init2=…&duel=… to its address.');
  }
  return { id, seats, created: false, canPush: await demoEndpointsExist() };
}

function identities(fragment) {
  const header = (name, values) => values.filter(Boolean).map((value) => ({ [name]: value }));
  // Telegram itself hands initData over in the fragment, so its script is not needed for this.
  const own = window.Telegram?.WebApp?.initData || fragment.get('tgWebAppData');
  return [
    ...header('X-Dev-Telegram-User-Id', [fragment.get('dev1'), fragment.get('dev2')]),
    ...header('X-Telegram-Init-Data', [fragment.get('init1') || own, fragment.get('init2')]),
  ].slice(0, 2);
}

async function demoEndpointsExist() {
  // An empty push is refused by an endpoint that exists, and has no effect.
  return post('push', {}).then(
    () => true,
    (error) => error.code !== undefined && error.status !== 404 && error.status !== 405,
  );
}

function post(name, body, signal) {
  const headers = { 'Content-Type': 'application/json' };
  return request(`/demo/api/${name}`, { method: 'POST', headers, body: JSON.stringify(body), signal });
}

async function request(url, options) {
  const response = await fetch(url, options).catch((cause) => {
    throw new Error('The hub cannot be reached', { cause });
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw refusal(response.status, answer);
  return answer;
}

function refusal(status, { error, code, request_id }) {
  const facts = [code, request_id && `request ${request_id}`].filter(Boolean).join(', ');
  const message = `${error ?? `HTTP ${status}`}${facts && ` (${facts})`}`;
  return Object.assign(new Error(message), { status, code, final: FINAL_STATUSES.has(status) });
}
