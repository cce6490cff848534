// A duel with a WebApp that resumes: whatever happens while it is away comes in order, each once.

import { equal, ok } from '../lib/check.mjs';
import { secretPayload } from '../lib/payload.mjs';
import { openPlayer } from '../lib/player.mjs';
import { initDataOf } from '../lib/telegram.mjs';

const DUEL = 8;
const ADA = 201;
const LINUS = 202;
const AT_TELEGRAM = { [ADA]: 910001, [LINUS]: 910002 };

export async function checkResume(stack) {
  await stack.call('OpenDuel', {
    duel_id: DUEL,
    participants: [ADA, LINUS].map((user_id) => ({ user_id, telegram_id: AT_TELEGRAM[user_id] })),
    settings: { presence_grace: '60s' },
  });
  await push(stack);
  const open = (name, user) =>
    openPlayer(stack, { name, duel: DUEL, initData: initDataOf(AT_TELEGRAM[user]), client: 'resuming' });
  const ada = await open('resuming Ada', ADA);
  await ada.untilFrame('duel_update', { seq: 1 });
  const linus = await open('resuming Linus', LINUS);
  await ada.untilFrame('presence', { user_id: LINUS, online: true });
  await push(stack);
  await ada.untilFrame('duel_update', { seq: 2 });

  await missedEvents(stack, ada);
  await missedEnd(stack, ada, linus);
}

async function missedEvents(stack, ada) {
  const before = (await ada.seen()).frames.length;
  await cut(stack, ada, (await ada.seen()).tickets[0]);
  const third = await push(stack);
  await notForAda(stack); // the fourth
  const fifth = await push(stack);
  const sixth = await viewOfAda(stack);
  await stack.network.restore();

  const back = await ada.untilFrame('connected', {}, 2);
  equal([back.recovered, back.head], [true, 6], 'recovered, up to the newest position');
  await ada.untilFrame('score', { seq: 6 });
  const seen = await ada.seen();
  const replayed = seen.frames.slice(before).filter(({ seq, type }) => seq && !['connected', 'pong'].includes(type));
  equal(replayed, [third, fifth, sixth], 'every missed event that is hers, in order, once, as it would have been live');
  equal(seen.tickets.length, 1, 'she came back with the resume ticket, not with a new one');

  await push(stack);
  await ada.untilFrame('duel_update', { seq: 7 });
  const { frames } = await ada.seen();
  const seqs = frames.filter(({ type }) => ['duel_update', 'score'].includes(type)).map(({ seq }) => seq);
  equal(seqs, [1, 2, 3, 5, 6, 7], 'over both connections: each once, in order');
}

async function missedEnd(stack, ada, linus) {
  const connected = (await ada.seen()).frames.findLast(({ type }) => type === 'connected');
  const used = (await ada.seen()).frames.find(({ resume_ticket }) => resume_ticket).resume_ticket;
  ok(connected.resume_ticket !== used, 'the new connection has a new resume ticket');
  await cut(stack, ada, used);
  const payload = secretPayload(stack.evidence, { winner: LINUS });
  const last_event = { payload_json: JSON.stringify(payload) };
  await stack.call('CloseDuel', { duel_id: DUEL, status: 'DUEL_STATUS_CANCELLED', last_event });
  await stack.network.restore();

  const end = { type: 'duel_closed', duel_id: DUEL, seq: 9, status: 'cancelled' };
  const seen = await ada.until('hears of the end', ({ closes }) => closes.length === 3);
  const endings = seen.frames.filter(({ seq }) => seq >= 8);
  equal(endings.filter(({ type }) => type !== 'pong'), [frame('duel_update', 8, payload), end],
    'the end comes to who resumes after it');
  equal([seen.closes, seen.stopped], [[1006, 1006, 4503], 'duel_closed'], 'and then she stops');

  const { frames } = await linus.until('hears of the end', ({ stopped }) => stopped === 'duel_closed');
  equal(frames.filter(({ type }) => type === 'presence'), [], 'within the grace Ada was never offline for Linus');
}

async function cut({ network }, player, ticket) {
  const { closes } = await player.seen();
  equal(network.cutOff(ticket), 1, 'the WebSocket is cut between nginx and the hub');
  await player.until('the connection is lost', (now) => now.closes.length === closes.length + 1);
}

/** Pushes a duel_update to all; returns its frame. */
async function push({ call, evidence }) {
  const payload = secretPayload(evidence);
  const { position } = await call('PushEvent', { duel_id: DUEL, payload_json: JSON.stringify(payload) });
  return frame('duel_update', Number(position.seq), payload);
}

async function notForAda({ call, evidence }) {
  const payload_json = JSON.stringify(secretPayload(evidence));
  await call('PushEvent', { duel_id: DUEL, payload_json, audience: { except: { user_ids: [ADA] } } });
}

async function viewOfAda({ call, evidence }) {
  const [general, own] = [secretPayload(evidence), secretPayload(evidence)];
  const views = [{ user_id: ADA, payload_json: JSON.stringify(own) }];
  const request = { duel_id: DUEL, type: 'score', payload_json: JSON.stringify(general), views };
  const { position } = await call('PushEvent', request);
  return frame('score', Number(position.seq), own);
}

function frame(type, seq, payload) {
  return { type, seq, payload: { duel_id: DUEL, ...payload } };
}
