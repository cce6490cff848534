// A whole duel with the WebApp that exists today: two players, events, views, a cut, the end.

import { equal, ok } from '../lib/check.mjs';
import { secretPayload } from '../lib/payload.mjs';
import { openPlayer } from '../lib/player.mjs';
import { openSocket } from '../lib/socket.mjs';
import { initDataOf } from '../lib/telegram.mjs';
import { claimsOf } from '../lib/ticket.mjs';

const DUEL = 7;
const ADA = 101;
const LINUS = 102;
const AT_TELEGRAM = { [ADA]: 900001, [LINUS]: 900002 };

export async function checkDuel(stack) {
  const opening = await stack.call('OpenDuel', {
    duel_id: DUEL,
    participants: [ADA, LINUS].map((user_id) => ({ user_id, telegram_id: AT_TELEGRAM[user_id] })),
    settings: { presence_grace: '1s' },
  });
  equal(opening.created, true, 'OpenDuel brings the duel into being');

  const ada = await openPlayer(stack, { name: 'Ada', duel: DUEL, initData: initDataOf(AT_TELEGRAM[ADA]) });
  await connected(ada, ADA, [ADA]);
  const linus = await openPlayer(stack, { name: 'Linus', duel: DUEL, initData: initDataOf(AT_TELEGRAM[LINUS]) });
  await connected(linus, LINUS, [ADA, LINUS]);
  await ada.untilFrame('presence', { duel_id: DUEL, user_id: LINUS, online: true });

  await anEvent(stack, [ada, linus]);
  await twoViews(stack, ada, linus);
  await theNetworkIsCut(stack, ada, linus);
  const unspent = await aTicketLeft(stack);
  await theEnd(stack, [ada, linus]);
  await afterTheEnd(stack, unspent);
  for (const player of [ada, linus]) await player.checkAnswers();
}

/** A stranger, and somebody of whom Telegram says nothing. */
export async function checkThoseKeptOut(stack) {
  const stranger = await openPlayer(stack, { name: 'stranger', duel: DUEL, initData: initDataOf(900009) });
  await stranger.until('stops because of Доступ запрещён', ({ stopped }) => stopped === 'Доступ запрещён');
  const nobody = await openPlayer(stack, { name: 'nobody', duel: DUEL });
  await nobody.until('stops because of Не авторизован', ({ stopped }) => stopped === 'Не авторизован');
  for (const player of [stranger, nobody]) await player.checkAnswers();
}

async function connected(player, user, online) {
  const frame = await player.untilFrame('connected');
  const { server_ts, server_time_ms, epoch, resume_ticket, ...rest } = frame;
  const expected = { type: 'connected', duel_id: DUEL, user_id: user, head: 0, recovered: null, online };
  equal(rest, expected, `user ${user}: connected`);
  ok(/^[0-9a-f]{16}$/.test(epoch), `user ${user}: an epoch`, epoch);
  ok(Math.abs(Date.now() - server_time_ms) < 10_000, `user ${user}: server_time_ms is now`, `${server_time_ms}`);
  equal(server_ts, Math.floor(server_time_ms / 1000), `user ${user}: server_ts is the same in seconds`);
  const resume = claimsOf(resume_ticket);
  equal([Number(resume.sub), resume.duel], [user, DUEL], `user ${user}: a resume ticket of their own`);

  const pong = await player.untilFrame('pong');
  equal(Object.keys(pong).sort(), ['seq', 'server_time_ms', 'ts', 'type'], `user ${user}: the pong's fields`);
  equal(pong.seq, 0, `user ${user}: the pong says what has been served`);
  const { tickets } = await player.seen();
  equal(Number(claimsOf(tickets[0]).sub), user, `user ${user}: the ticket is theirs, though Telegram's id is another`);
}

async function anEvent({ call, evidence }, players) {
  const payload = secretPayload(evidence, { round: 1 });
  const pushed = await call('PushEvent', { duel_id: DUEL, payload_json: JSON.stringify(payload) });
  equal([pushed.position.seq, pushed.connections], ['1', 2], 'PushEvent: the first position, handed to both');
  for (const player of players) {
    const { updates } = await player.until('the event', ({ updates }) => updates.length === 1);
    equal(updates, [update(1, payload)], 'the event as it was pushed, duel_id added');
  }
}

async function twoViews({ call, evidence }, ada, linus) {
  const [general, own] = [secretPayload(evidence), secretPayload(evidence, { you: 'answered' })];
  const views = [{ user_id: LINUS, payload_json: JSON.stringify(own) }];
  const pushed = await call('PushEvent', { duel_id: DUEL, payload_json: JSON.stringify(general), views });
  equal(pushed.position.seq, '2', 'an event with a view has one position');
  const last = async (player) => (await player.until('their view', ({ updates }) => updates.length === 2)).updates[1];
  equal(await last(ada), update(2, general), 'Ada sees what everybody sees');
  equal(await last(linus), update(2, own), 'Linus sees his own view under the same seq');
}

async function theNetworkIsCut({ call, network, evidence }, ada, linus) {
  const [first] = (await ada.seen()).tickets;
  equal(network.cutOff(first), 1, "Ada's WebSocket is cut between nginx and the hub");
  await ada.until('the connection is lost', ({ closes }) => closes.length === 1);
  const missed = [secretPayload(evidence), secretPayload(evidence)];
  for (const payload of missed) await call('PushEvent', { duel_id: DUEL, payload_json: JSON.stringify(payload) });
  const { updates } = await linus.until('goes on', ({ updates }) => updates.length === 4);
  equal(updates.slice(2), [update(3, missed[0]), update(4, missed[1])], 'Linus misses nothing meanwhile');
  await linus.untilFrame('presence', { user_id: ADA, online: false });

  await network.restore();
  const back = await ada.untilFrame('connected', {}, 2);
  equal([back.head, back.recovered], [4, null], 'Ada is back by herself; she did not ask to resume');
  const seen = await ada.until('the present state', ({ updates }) => updates.length === 3);
  equal(seen.updates.at(-1), update(4, missed[1]), 'Ada starts with the latest duel_update');
  equal(seen.closes, [1006], 'Ada lost one connection');
  equal(new Set(seen.tickets).size, 2, 'Ada came back with a fresh ticket');
  await linus.untilFrame('presence', { user_id: ADA, online: true });
}

async function aTicketLeft({ call, evidence }) {
  const { ticket } = await call('IssueTicket', { duel_id: DUEL, user_id: ADA });
  evidence.ticket(ticket);
  return ticket;
}

async function theEnd({ call, evidence }, players) {
  const payload = secretPayload(evidence, { winner: ADA });
  const last_event = { payload_json: JSON.stringify(payload) };
  const closed = await call('CloseDuel', { duel_id: DUEL, status: 'DUEL_STATUS_FINISHED', last_event });
  equal(closed.position.seq, '6', 'CloseDuel: the last event and the end have a position each');
  for (const player of players) {
    const seen = await player.until('the connection is closed', ({ stopped, closes }) => stopped && closes.at(-1) !== 1006);
    const end = { type: 'duel_closed', duel_id: DUEL, seq: 6, status: 'finished' };
    equal(seen.frames.slice(-2), [update(5, payload), end], 'the last event, then the end');
    equal([seen.closes.at(-1), seen.stopped], [4503, 'duel_closed'], 'closed with 4503, and the WebApp stops');
  }
}

async function afterTheEnd(stack, unspent) {
  const late = await openPlayer(stack, { name: 'late Ada', duel: DUEL, initData: initDataOf(AT_TELEGRAM[ADA]) });
  const { frames } = await late.until('stops because of Дуэль уже завершена',
    ({ stopped }) => stopped === 'Дуэль уже завершена');
  equal(frames, [], 'after the end there is no ticket, and so no connection');
  await late.checkAnswers();
  const initData = initDataOf(AT_TELEGRAM[LINUS]);
  stack.evidence.initData(initData);
  const headers = { 'X-Telegram-Init-Data': initData };
  const answer = await stack.get(`/api/duel/ws-ticket?duel_id=${DUEL}`, { headers });
  stack.evidence.answer(answer, 'a ticket after the end');
  equal([answer.status, answer.json.code], [409, 'duel_closed'], 'a ticket after the end: 409');

  const { frame } = await openSocket(late.page, `${stack.wsOrigin}/ws?ticket=${encodeURIComponent(unspent)}`);
  equal([frame.type, frame.recovered, frame.resume_ticket], ['connected', null, undefined],
    'a ticket from before the end fetches the end, and nothing to come back with');
}

function update(seq, payload) {
  return { type: 'duel_update', seq, payload: { duel_id: DUEL, ...payload } };
}
