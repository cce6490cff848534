// What one address may take of nginx and of its disk, and that the others have theirs meanwhile.

import http from 'node:http';
import https from 'node:https';

import { equal, ok } from '../lib/check.mjs';
import { HANDSHAKE } from '../lib/https.mjs';
import { initDataOf } from '../lib/telegram.mjs';

const [SCHOOL, FLOOD, OTHER] = ['127.0.0.4', '127.0.0.5', '127.0.0.6'];
const DUELS = [7_001, 7_002, 7_003, 7_004];
const PLAYERS_OF_EACH = 50;
const SOCKET = '/ws';
const TICKET = '/api/duel/ws-ticket?duel_id=';

/** `get` makes requests to nginx, whose file `accessLog` they are logged in. */
export async function checkLimits({ get, call, nginx, accessLog, evidence }) {
  await aSchoolComesBack(get, call, evidence);
  for (const path of [SOCKET, TICKET]) await oneFloods(get, path);
  whatIsLogged(nginx.logs(), accessLog);
}

/** 200 players behind one address, all at once, as after a restart. Each has to fetch a ticket as well. */
async function aSchoolComesBack(get, call, evidence) {
  const players = [];
  for (const duel_id of DUELS) {
    const participants = Array.from({ length: PLAYERS_OF_EACH }, (_, nth) => ({ user_id: 1_000 * duel_id + nth }));
    await call('OpenDuel', { duel_id, participants });
    players.push(...participants.map(({ user_id }) => ({ duel_id, initData: initDataOf(user_id) })));
  }
  const comesBack = async ({ duel_id, initData }) => {
    const answer = await get(TICKET + duel_id, { from: SCHOOL, headers: { 'X-Telegram-Init-Data': initData } });
    const ticket = answer.json?.data?.ticket ?? 'none';
    const { status } = await get(`${SOCKET}?ticket=${ticket}`, { from: SCHOOL, headers: HANDSHAKE });
    evidence.initData(initData);
    evidence.ticket(ticket);
    return `${answer.status} ${status}`;
  };
  const began = performance.now();
  const outcomes = await Promise.all(players.map(comesBack));
  const tookMs = Math.round(performance.now() - began);
  equal([...new Set(outcomes)], ['200 101'], `200 players of one address come back at once (${tookMs} ms)`);
}

async function oneFloods(get, path) {
  const refused = await flood(get, path, { from: FLOOD });
  ok(refused, `${path}: who floods is refused`);
  equal((await get(path, { method: 'POST', from: OTHER })).status, 405, `${path}: nobody else is`);
  const { status, headers, json } = refused ?? {};
  equal([status, json?.success, json?.code, json?.error],
    [429, false, 'too_many_requests', 'Слишком много запросов'], `${path}: says what the hub says`);
  ok(/^[0-9a-f]{16}$/.test(json?.request_id), `${path}: with a request id`, json?.request_id);
  equal([headers?.['x-request-id'], headers?.['retry-after'], headers?.['cache-control']],
    [json?.request_id, '1', 'no-store'], `${path}: and its headers`);
  equal([headers?.['access-control-allow-origin'], headers?.['access-control-expose-headers']],
    ['*', 'retry-after,x-request-id'], `${path}: which a page may read`);
}

/**
 * Asks until some hundreds have been refused, and returns the last refusal; undefined if nobody is. With POST, to which the hub
 * itself says 405 however many there are.
 */
export async function flood(get, path, options) {
  const keep = { keepAlive: true, maxSockets: 32 };
  const agents = { 'http:': new http.Agent(keep), 'https:': new https.Agent(keep) };
  const refusals = [];
  for (let batch = 0; batch < 50 && refusals.length < 500; batch++) {
    const asked = Array.from({ length: 200 }, () => get(path, { method: 'POST', ...options, agents }));
    refusals.push(...(await Promise.all(asked)).filter(({ status }) => status === 429));
  }
  Object.values(agents).forEach((agent) => agent.destroy());
  return refusals.at(-1);
}

/** 1000 of them or more were refused in all. */
function whatIsLogged(logs, accessLog) {
  const refused = logs[accessLog].split('\n').filter((line) => line.includes('"status":429'));
  ok(refused.length < 100, 'of what is refused, the access log has little', `${refused.length}`);
  const errors = Object.entries(logs).filter(([name]) => name.includes('error'));
  ok(errors.length > 0, 'there are error logs');
  equal(errors.filter(([, text]) => text.includes('limiting')).map(([name]) => name), [], 'and the error logs nothing');
}
