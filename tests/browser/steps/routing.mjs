// Which path of nginx leads where, and what may not pass through it.

import { equal, ok } from '../lib/check.mjs';

export async function checkRouting({ get, getPlain, evidence }) {
  await theHubAndTheBackend(get, evidence);
  await webSocketPathsWithoutAWebSocket(get, evidence);
  await belowTheSocket(get, evidence);
  await headersThatClientsMakeUp(get, evidence);
  await theWebAppItself(get, getPlain);
}

async function theHubAndTheBackend(get, evidence) {
  const other = await get('/api/other?x=1');
  equal([other.status, other.json?.backend, other.json?.url], [200, true, '/api/other?x=1'], '/api/other: the backend');
  const near = await get('/api/duel/ws-ticket/more');
  equal(near.json?.backend, true, '/api/duel/ws-ticket/more: the backend');
  const ticket = await get('/api/duel/ws-ticket?duel_id=7');
  equal([ticket.status, ticket.json?.code], [401, 'unauthorized'], '/api/duel/ws-ticket: the hub');
  evidence.answer(ticket, '/api/duel/ws-ticket');
}

async function webSocketPathsWithoutAWebSocket(get, evidence) {
  for (const path of ['/ws', '/ws/', '/ws?ticket=x']) {
    const plain = await get(path);
    equal([plain.status, plain.headers.location], [426, undefined], `GET ${path}: 426 and no redirect`);
    equal([plain.json?.success, plain.json?.code], [false, 'upgrade_required'], `GET ${path}: says in JSON why`);
    equal(plain.headers.upgrade, 'websocket', `GET ${path}: names the protocol to upgrade to`);
    evidence.answer(plain, `GET ${path}`);
  }
}

async function belowTheSocket(get, evidence) {
  const below = await get('/ws/other');
  equal([below.status, below.json?.code], [404, 'not_found'], 'GET /ws/other: 404');
  evidence.answer(below, 'GET /ws/other');
}

async function headersThatClientsMakeUp(get, evidence) {
  const madeUp = '0123456789abcdef';
  const headers = {
    'X-Request-Id': madeUp, 'X-Dev-Telegram-User-Id': '900001', 'X-Forwarded-For': '203.0.113.9',
    Upgrade: 'h2c', Connection: 'Upgrade, HTTP2-Settings', 'HTTP2-Settings': 'AAMAAABkAAQAAP__',
  };
  const { json } = await get('/api/other', { headers });
  equal(json.headers.upgrade, undefined, 'an upgrade to h2c does not reach the backend');
  equal(json.headers['x-dev-telegram-user-id'], undefined, 'the header of development does not reach the backend');
  equal(json.headers['x-forwarded-for'], '127.0.0.1', 'the address that nginx saw, and nothing that the client wrote');
  ok(/^[0-9a-f]{16}$/.test(json.headers['x-request-id']), 'the backend gets a request id of the one form');
  ok(json.headers['x-request-id'] !== madeUp, "the request id is nginx's, not the client's");

  const tunnel = await get('/ws', { headers });
  equal(tunnel.status, 426, 'an upgrade to h2c on /ws: 426');
  evidence.answer(tunnel, 'an upgrade to h2c on /ws');
  ok(tunnel.json?.request_id !== madeUp, "the hub takes nginx's request id, not the client's");
  const ticket = await get('/api/duel/ws-ticket?duel_id=7', { headers });
  equal(ticket.status, 401, 'in production nobody is whom X-Dev-Telegram-User-Id says');
  evidence.answer(ticket, 'a ticket with X-Dev-Telegram-User-Id');
}

async function theWebAppItself(get, getPlain) {
  const page = await get('/some/route?x=1');
  equal([page.status, page.text.includes('<!doctype html>')], [200, true], 'any other path: the WebApp');
  equal(page.headers['cache-control'], 'no-cache', 'the WebApp is asked for anew');
  ok(page.headers['strict-transport-security'], 'the WebApp is https only from then on');
  equal(page.headers['x-frame-options'], undefined, "Telegram's web clients may frame the WebApp");
  equal((await get('/assets/none.js')).status, 404, 'a missing asset is not the WebApp');

  const plain = await getPlain('/ws?x=1');
  equal([plain.status, plain.headers.location], [301, 'https://quiz.test/ws?x=1'], 'http: to https, the path kept');
}
