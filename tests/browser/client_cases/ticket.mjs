// Tickets that cannot be had, or are not good any more.

import { equal, ok, until } from '../lib/check.mjs';
import { RETRY_AFTER_MS } from '../lib/site.mjs';
import { BACK_WITHIN_MS } from '../lib/stage.mjs';
import { initDataOf } from '../lib/telegram.mjs';
import { WebSocket } from '../lib/tools.mjs';
import { seconds } from '../lib/user.mjs';

const DOWN = [['503', 503], ['no answer', 'silent']];

/** The ticket API is down while somebody who is in has to come back: the resume ticket is enough. */
export async function apiDown(stage) {
  const { duel, network, user } = await stage.scene();
  const figures = [];
  for (const [name, api] of DOWN) {
    duel.tickets.api = api;
    const asked = duel.tickets.asked;
    const cutAt = Date.now();
    network.cut();
    await duel.push(1);
    const back = await user.untilState('online', { since: cutAt, withinMs: BACK_WITHIN_MS });
    await user.untilSeen(duel.pushed);
    equal(duel.tickets.asked, asked, `${name}: it is not even asked`);
    duel.tickets.api = 'up';
    figures.push(`${name} ${seconds(back.at - cutAt)}`);
  }
  await user.close();
  return `back: ${figures.join(', ')}`;
}

/** It is down when somebody comes first: they are in once it is back. */
export async function apiDownAtFirst(stage) {
  const figures = [];
  for (const [name, api] of DOWN) {
    const [duel, network] = await Promise.all([stage.duel(), stage.network()]);
    duel.tickets.api = api;
    const user = await stage.open(duel, network);
    const { why } = await user.untilState('waiting', { withinMs: BACK_WITHIN_MS });
    ok(why.length > 0, `${name}: it says why it waits`);
    const upAt = Date.now();
    duel.tickets.api = 'up';
    const online = await user.untilState('online', { since: upAt, withinMs: BACK_WITHIN_MS });
    await duel.push(2);
    await user.untilSeen(duel.pushed);
    await user.close();
    figures.push(`${name} ${seconds(online.at - upAt)}`);
  }
  return `in, once it is back: ${figures.join(', ')}`;
}

/** It says when to ask again, which a user who looks at the page does not change. */
export async function apiSaysWhen(stage) {
  const [duel, network] = await Promise.all([stage.duel(), stage.network()]);
  duel.tickets.api = 429;
  const user = await stage.open(duel, network);
  const refused = await user.untilState('waiting');
  duel.tickets.api = 'up';
  await user.page.hide();
  await user.page.show();
  const online = await user.untilState('online', { withinMs: BACK_WITHIN_MS });
  const again = (await user.seen()).states.find(({ name, at }) => name === 'connecting' && at >= refused.at);
  ok(again.at - refused.at >= RETRY_AFTER_MS - 100, 'it is not asked before', `after ${again.at - refused.at} ms`);
  await user.close();
  return `asked again ${seconds(again.at - refused.at)}, online ${seconds(online.at - refused.at)} after 429 with Retry-After: 3`;
}

/** The hub cannot be reached when somebody comes first. The ticket, which works once, is kept for when it can. */
export async function hubAwayAtFirst(stage) {
  const figures = [];
  for (const [name, fault] of [['refused', (network) => network.refuse()], ['black hole', (network) => network.blackHole()]]) {
    const [duel, network] = await Promise.all([stage.duel(), stage.network()]);
    const asked = duel.tickets.asked;
    await fault(network);
    // Long enough for the ticket on a busy machine: another one would be asked for.
    const user = await stage.open(duel, network, { connectTimeoutMs: 6000 });
    await user.untilState('waiting', { withinMs: BACK_WITHIN_MS });
    const restoredAt = Date.now();
    await network.restore({ moved: true });
    const online = await user.untilState('online', { since: restoredAt, withinMs: BACK_WITHIN_MS });
    ok(duel.tickets.asked - asked === 1, `${name}: one ticket is enough`, JSON.stringify((await user.seen()).states));
    await user.close();
    figures.push(`${name} ${seconds(online.at - restoredAt)}`);
  }
  return `in, once it is there: ${figures.join(', ')}`;
}

/** initData is too old for a new ticket. Who is in comes back over a restart; who is not is told. */
export async function initDataExpired(stage) {
  const { duel, network, user } = await stage.scene({ ageSeconds: 297 });
  const initData = initDataOf(user.id, { ageSeconds: 301 });
  const ask = () => fetch(`http://${stage.edge}/api/duel/ws-ticket?duel_id=${duel.id}`, { headers: { 'X-Telegram-Init-Data': initData } });
  equal((await ask()).status, 401, 'there is no ticket for old initData');
  // Until the user's own is as old.
  await until('the initData is too old', () => Date.now() > user.openedAt + 4500);
  const killedAt = Date.now();
  await stage.stopHub('SIGKILL');
  await stage.startHub();
  await duel.push(1);
  const back = await user.untilState('online', { since: killedAt, withinMs: BACK_WITHIN_MS });
  await user.untilSeen(duel.pushed);
  equal((await user.seen()).connected.at(-1).recovered, true, 'nothing is missing');
  await user.close();

  const late = await stage.open(duel, network, { ageSeconds: 400 });
  const { reason, error } = await late.untilState('closed');
  equal([reason, error?.code], ['ticket_refused', 'unauthorized'], 'without a session: the reason is said');
  await late.close();
  return `back ${seconds(back.at - killedAt)} after a kill; without a session: ${reason}`;
}

/** The ticket was used already: a fresh one is fetched at once. */
export async function usedTicket(stage) {
  const [duel, network] = await Promise.all([stage.duel(), stage.network()]);
  const { ticket } = await stage.call('IssueTicket', { duelId: duel.id, userId: duel.userIds[0] });
  await use(stage, ticket);
  const user = await stage.open(duel, network, { usedTicket: ticket });
  const online = await user.untilState('online', { withinMs: BACK_WITHIN_MS });
  const { states, tickets } = await user.seen();
  equal(tickets, 2, 'one fresh ticket is fetched');
  const refused = states.find(({ name }) => name === 'waiting');
  ok(refused.nextAttemptAt - refused.at < 100, 'it is fetched at once', JSON.stringify(states));
  await user.close();
  return `online ${seconds(online.at - refused.at)} after 4002`;
}

function use(stage, ticket) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://${stage.edge}/ws`, ['duelhub.v1', ticket]);
    socket.on('error', reject);
    socket.on('message', () => socket.close());
    socket.on('close', resolve);
  });
}
