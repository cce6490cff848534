// The hub says stop.

import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import { equal } from '../lib/check.mjs';
import { BACK_WITHIN_MS } from '../lib/stage.mjs';
import { WebSocket } from '../lib/tools.mjs';
import { seconds } from '../lib/user.mjs';

/** Checks the end, and that nobody comes back after it. */
async function expectEnd(user, network, since, reason) {
  const closed = await user.untilState('closed', { since, withinMs: BACK_WITHIN_MS });
  equal(closed.reason, reason, 'the reason is said');
  const taken = network.taken;
  await sleep(2000);
  equal(network.taken, taken, `${reason}: no further connection`);
  equal((await user.seen()).leftovers, { timers: 0, listeners: 0, sockets: 0 }, `${reason}: nothing is left behind`);
  return closed;
}

export async function disconnected(stage) {
  const { duel, network, user } = await stage.scene();
  const startedAt = Date.now();
  await stage.call('Disconnect', { duelId: duel.id, userId: user.id });
  const closed = await expectEnd(user, network, startedAt, 'duel_access_denied');
  await user.close();
  return `${closed.reason} ${seconds(closed.at - startedAt)}`;
}

/** The duel is closed while somebody is there, and while somebody is away. */
export async function duelClosed(stage) {
  const figures = [];
  for (const away of [false, true]) {
    const { duel, network, user } = await stage.scene();
    if (away) {
      await network.refuse();
      await user.untilState('waiting');
      await duel.push(1);
    }
    const lastEvent = { type: 'duel_update', payload: { n: 99 } };
    await stage.call('CloseDuel', { duelId: duel.id, status: 'DUEL_STATUS_FINISHED', lastEvent });
    const since = Date.now() - 1000;
    const startedAt = Date.now();
    await network.restore();
    const closed = await expectEnd(user, network, since, 'duel_closed');
    await user.untilSeen([...duel.pushed, 99]);
    equal((await user.seen()).closed.map(({ status }) => status), ['finished'], 'how the duel ended is told once');
    await user.close();
    figures.push(`${away ? 'away' : 'there'} ${seconds(Math.max(0, closed.at - startedAt))}`);
  }
  return `told: ${figures.join(', ')}`;
}

/** The user opens the duel three more times, which is one too many: the oldest connection ends, and does not fight for its place. */
export async function replaced(stage) {
  const { duel, network, user } = await stage.scene();
  const figure = await openThreeMore(stage, duel, network, user);
  await user.close();
  return figure;
}

/**
 * The same after a first attempt that was given up. Its ticket, which works once, has opened the connection, so nothing of that attempt
 * can have replaced it.
 */
export async function replacedAfterDeadStart(stage) {
  const [duel, network] = await Promise.all([stage.duel(), stage.network()]);
  network.blackHole();
  const user = await stage.open(duel, network);
  await user.untilState('waiting', { withinMs: BACK_WITHIN_MS });
  await network.restore({ moved: true });
  await user.untilState('online', { withinMs: BACK_WITHIN_MS });
  const figure = await openThreeMore(stage, duel, network, user);
  await user.close();
  return figure;
}

async function openThreeMore(stage, duel, network, user) {
  const startedAt = Date.now();
  const sockets = [];
  for (let nth = 0; nth < 3; nth += 1) {
    const { ticket } = await stage.call('IssueTicket', { duelId: duel.id, userId: user.id });
    const socket = new WebSocket(`ws://${stage.edge}/ws`, ['duelhub.v1', ticket]);
    await once(socket, 'message');
    sockets.push(socket);
  }
  try {
    const closed = await expectEnd(user, network, startedAt, 'connection_replaced');
    return `${closed.reason} ${seconds(closed.at - startedAt)}`;
  } finally {
    sockets.forEach((socket) => socket.terminate());
  }
}
