// What the logs of nginx and the hub say, and what they must not, also when things go wrong.

import { equal, ok, until } from '../lib/check.mjs';
import { HANDSHAKE } from '../lib/https.mjs';
import { initDataOf } from '../lib/telegram.mjs';

const SITE_LOGS = ['quizbot-access.log', 'quizbot-error.log', 'quizbot-ws-error.log'];

/** Takes the hub away, so that nginx has errors to write. Nothing works afterwards. */
export async function loseTheHub({ network, get, call, evidence }) {
  const { ticket } = await call('IssueTicket', { duel_id: 80, user_id: 1 });
  evidence.ticket(ticket);
  const initData = initDataOf(980001);
  evidence.initData(initData);
  await network.refuse();
  for (const path of ['/ws', '/ws/']) {
    const { status } = await get(`${path}?ticket=${ticket}`, { headers: HANDSHAKE });
    equal(status, 502, `${path} without the hub: 502`);
  }
  const { status } = await get('/api/duel/ws-ticket?duel_id=80', { headers: { 'X-Telegram-Init-Data': initData } });
  equal(status, 502, 'the ticket API without the hub: 502');
}

/** The hub's log has every answer, but for refusals that came too fast: how many those are, the next refusal's line says. */
export async function checkRequestIds({ get, hub, evidence }) {
  const told = async () => {
    await get('/ws');
    const lines = linesOf(hub.log());
    const logged = new Set(lines.map(({ request_id }) => request_id));
    const missing = [...evidence.requestIds].filter((id) => !logged.has(id));
    return missing.length <= lines.reduce((sum, { suppressed = 0 }) => sum + suppressed, 0);
  };
  await until("every answer's request_id is in the hub's log, or counted there", told);
}

export async function checkLogs({ nginx, hub, evidence, secrets }) {
  for (const [name, text] of Object.entries(secrets)) evidence.secret(text, name);
  const hubLines = linesOf(hub.log());
  const connections = hubLines.filter(({ message }) => message === 'connected').map(({ request_id }) => request_id);
  // nginx writes the line of a WebSocket once that is closed.
  const access = () => new Set(linesOf(nginx.logs()['quizbot-access.log']).map((line) => line.request_id));
  ok(connections.length >= 10, 'the hub has logged the connections', `${connections.length}`);
  await until("nginx's access log has every WebSocket under the hub's id",
    () => connections.every((id) => access().has(id)));

  const ids = [...evidence.requestIds];
  ok(ids.length >= 30, 'answers were collected', `${ids.length}`);
  equal(ids.filter((id) => !access().has(id)), [], "every answer's request_id is in nginx's access log");

  const logs = { 'hub.log': hub.log(), ...nginx.logs() };
  for (const name of SITE_LOGS) ok(name in logs, `${name} is written`);
  ok(logs['quizbot-error.log'].includes('connect() failed'), 'nginx writes errors, so their absence means something');
  ok(evidence.secretsCount > 100, 'there are secrets to look for', `${evidence.secretsCount}`);
  for (const [name, text] of Object.entries(logs)) equal(evidence.leaksIn(text), [], `no secret in ${name}`);
}

/** Those that are complete. */
function linesOf(log) {
  return log.split('\n').slice(0, -1).map((line) => JSON.parse(line));
}
