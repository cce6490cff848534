// The backend sends a player away, to come back or not to. The WebApp that exists today understands both by the error's
// word alone.

import { equal } from '../lib/check.mjs';
import { openPlayer } from '../lib/player.mjs';
import { initDataOf } from '../lib/telegram.mjs';

const DUEL = 10;
const [ADA, ADA_AT_TELEGRAM] = [401, 940001];

export async function checkDisconnect(stack) {
  const { call, evidence } = stack;
  await call('OpenDuel', { duel_id: DUEL, participants: [{ user_id: ADA, telegram_id: ADA_AT_TELEGRAM }] });
  const initData = initDataOf(ADA_AT_TELEGRAM);
  const player = await openPlayer(stack, { name: 'Ada, disconnected', duel: DUEL, initData });
  await player.untilFrame('connected');

  const first = await call('Disconnect', { duel_id: DUEL, user_id: ADA, reconnect: true });
  equal(first.connections, 1, 'Disconnect closes her connection');
  const restart = await player.untilFrame('error', { message: 'server_restart', retry: true });
  await player.untilFrame('connected', {}, 2);

  await call('Disconnect', { duel_id: DUEL, user_id: ADA });
  const denied = await player.untilFrame('error', { message: 'duel_access_denied', retry: false });
  const { closes, stopped } = await player.until('the connection is closed', (seen) => seen.closes.length === 2);
  equal(closes, [1012, 4502], 'the first time with 1012, the second with 4502');
  equal(stopped, 'duel_access_denied', 'she stops the second time only');
  for (const { request_id } of [restart, denied]) evidence.requestIds.add(request_id);
}
