// The ticket API's answers, and CORS as its headers say.

import { equal, ok } from '../lib/check.mjs';
import { FRIEND, STRANGER } from '../lib/stack.mjs';
import { initDataOf } from '../lib/telegram.mjs';
import { claimsOf } from '../lib/ticket.mjs';

const DUEL = 70;
const [ADA, ADA_AT_TELEGRAM] = [170, 970001];
const PATH = `/api/duel/ws-ticket?duel_id=${DUEL}`;

export async function checkTicketApi(stack) {
  await stack.call('OpenDuel', { duel_id: DUEL, participants: [{ user_id: ADA, telegram_id: ADA_AT_TELEGRAM }] });
  const ask = asker(stack);
  await aTicket(ask);
  await refusals(ask);
  await cors(stack);
}

function asker({ get, evidence }) {
  return async (what, path, initData) => {
    const headers = initData === undefined ? {} : { 'X-Telegram-Init-Data': initData };
    const answer = await get(path, { headers });
    evidence.answer(answer, what);
    if (initData) evidence.initData(initData);
    if (answer.json.success) evidence.ticket(answer.json.data.ticket);
    return answer;
  };
}

async function aTicket(ask) {
  const { status, json } = await ask('a participant', PATH, initDataOf(ADA_AT_TELEGRAM));
  equal([status, json.success], [200, true], 'a participant: a ticket');
  equal(Object.keys(json).sort(), ['data', 'request_id', 'success'], 'a participant: nothing else in the envelope');
  const { ticket, expires_at } = json.data;
  const claims = claimsOf(ticket);
  equal(Object.keys(claims).sort(), ['aud', 'duel', 'exp', 'iat', 'jti', 'rev', 'role', 'sub'], 'the claims of a ticket');
  equal([claims.aud, Number(claims.sub), claims.duel], ['duelhub', ADA, DUEL], 'the ticket is for the right user and duel');
  equal(expires_at, claims.exp, 'the answer says until when');
  const life = claims.exp - claims.iat;
  ok(life >= 300 && life <= 301, 'the ticket lives for 300 s, rounded up to a whole second', `${life}`);
}

async function refusals(ask) {
  const good = initDataOf(ADA_AT_TELEGRAM);
  const refused = async (what, path, initData, status, code, error) => {
    const answer = await ask(what, path, initData);
    equal([answer.status, answer.json.success, answer.json.code], [status, false, code], what);
    equal(answer.json.error, error, `${what}: the text`);
  };
  const unauthorized = (what, initData) => refused(what, PATH, initData, 401, 'unauthorized', 'Не авторизован');

  await unauthorized('without initData', undefined);
  await unauthorized('empty initData', '');
  await unauthorized('tampered initData', good.replace(`${ADA_AT_TELEGRAM}`, `${ADA_AT_TELEGRAM + 1}`));
  await unauthorized("another bot's initData", initDataOf(ADA_AT_TELEGRAM, { token: '1:other' }));
  await unauthorized('old initData', initDataOf(ADA_AT_TELEGRAM, { ageSeconds: 86_410 }));
  await unauthorized('initData of tomorrow', initDataOf(ADA_AT_TELEGRAM, { ageSeconds: -60 }));
  const stranger = initDataOf(ADA_AT_TELEGRAM + 7);
  await refused('a stranger', PATH, stranger, 403, 'duel_access_denied', 'Доступ запрещён');
  await refused('the user id is no Telegram id', PATH, initDataOf(ADA), 403, 'duel_access_denied', 'Доступ запрещён');
  for (const path of ['/api/duel/ws-ticket', '/api/duel/ws-ticket?duel_id=', '/api/duel/ws-ticket?duel_id=seven']) {
    await refused(`no duel: ${path}`, path, good, 400, 'duel_id_missing', 'Не указан ID дуэли');
  }
  await refused('no such duel', '/api/duel/ws-ticket?duel_id=71', good, 404, 'duel_unknown', 'Дуэль не найдена');
}

async function cors({ get, evidence, originOf }) {
  const preflight = (origin) => {
    const asked = { 'Access-Control-Request-Method': 'GET', 'Access-Control-Request-Headers': 'x-telegram-init-data' };
    return get(PATH, { method: 'OPTIONS', headers: { Origin: origin, ...asked } });
  };
  const actual = (origin) => get(PATH, { headers: { Origin: origin } });
  const allowed = originOf(FRIEND);

  const { status, headers } = await preflight(allowed);
  ok(status === 200 || status === 204, 'preflight: answered', `${status}`);
  equal(headers['access-control-allow-origin'], allowed, 'preflight of an allowed origin: allowed');
  ok(listed(headers['access-control-allow-methods'], 'get'), 'preflight: GET is allowed');
  ok(listed(headers['access-control-allow-headers'], 'x-telegram-init-data'), 'preflight: the header is allowed');
  ok(listed(headers.vary, 'origin'), 'preflight: varies by origin');
  const answer = await actual(allowed);
  evidence.answer(answer, 'a request of an allowed origin');
  equal(answer.headers['access-control-allow-origin'], allowed, 'request of an allowed origin: readable');
  ok(listed(answer.headers['access-control-expose-headers'], 'x-request-id'), 'X-Request-Id is readable too');

  for (const origin of [originOf(STRANGER), 'null', `${allowed}.evil.test`, allowed.replace('https:', 'http:')]) {
    const refused = await preflight(origin);
    equal(refused.headers['access-control-allow-origin'], undefined, `preflight of ${origin}: not allowed`);
    const unreadable = await actual(origin);
    evidence.answer(unreadable, `a request of ${origin}`);
    equal(unreadable.headers['access-control-allow-origin'], undefined, `request of ${origin}: not readable`);
  }
}

function listed(header, name) {
  return (header ?? '').toLowerCase().split(',').some((entry) => entry.trim() === name);
}
