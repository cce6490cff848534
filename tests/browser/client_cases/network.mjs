// The network between the page and the hub is bad. Each case returns after how long the user saw what they had to see.

import { setTimeout as sleep } from 'node:timers/promises';

import { equal, ok, until } from '../lib/check.mjs';
import { BACK_WITHIN_MS, NOTICED_WITHIN_MS } from '../lib/stage.mjs';
import { seconds } from '../lib/user.mjs';

/** Nothing gets through any more; then the phone is in another network, where the old connection stays dead. */
export async function blackHole(stage) {
  const { duel, network, user } = await stage.scene();
  const figures = await deadAndBack(duel, network, user, NOTICED_WITHIN_MS);
  await user.close();
  return figures;
}

/** The same as an app has it that sets nothing: a ping every 15 s. */
export async function blackHoleByDefault(stage) {
  const { duel, network, user } = await stage.scene({ pingIntervalMs: undefined, pongTimeoutMs: undefined, connectTimeoutMs: undefined });
  const figures = await deadAndBack(duel, network, user, 25_000);
  await user.close();
  return figures;
}

async function deadAndBack(duel, network, user, noticedWithinMs) {
  const lostAt = Date.now();
  network.blackHole();
  await duel.push(2);
  const noticed = await user.untilState('waiting', { since: lostAt, withinMs: noticedWithinMs });
  const restoredAt = Date.now();
  await network.restore({ moved: true });
  const back = await user.untilState('online', { since: restoredAt, withinMs: BACK_WITHIN_MS });
  const seen = await user.untilSeen(duel.pushed);
  equal(seen.slice(2).map(({ delivery }) => delivery), ['replayed', 'replayed'], 'what was missed is replayed');
  return `noticed ${seconds(noticed.at - lostAt)}, back ${seconds(back.at - restoredAt)}`;
}

/** Only one direction is dead: the user still hears the hub, or the hub still hears the user. */
export async function oneWay(stage) {
  const { duel, network, user } = await stage.scene();
  const figures = [];
  for (const [name, hole] of [['up', { down: false }], ['down', { up: false }]]) {
    const lostAt = Date.now();
    network.blackHole(hole);
    const noticed = await user.untilState('waiting', { since: lostAt, withinMs: NOTICED_WITHIN_MS });
    await duel.push(1);
    await network.restore({ moved: true });
    await user.untilState('online', { since: noticed.at, withinMs: BACK_WITHIN_MS });
    await user.untilSeen(duel.pushed);
    figures.push(`${name} ${seconds(noticed.at - lostAt)}`);
  }
  await user.close();
  return `noticed: ${figures.join(', ')}`;
}

/** A tunnel: nothing gets through, but for less long than a sign of life may take. */
export async function stall(stage) {
  const { duel, network, user } = await stage.scene({ pongTimeoutMs: 8000 });
  const lostAt = Date.now();
  network.blackHole();
  await duel.push(2);
  await sleep(3000);
  const restoredAt = Date.now();
  await network.restore();
  const seen = await user.untilSeen(duel.pushed);
  await user.expectStates([], lostAt, 'a short gap is not a lost connection');
  await user.close();
  return `events ${seconds(seen.at(-1).at - restoredAt)} after 3 s of nothing`;
}

export async function cut(stage) {
  const { duel, network, user } = await stage.scene();
  const cutAt = Date.now();
  equal(network.cut(), 1, 'one connection is cut');
  const noticed = await user.untilState('waiting', { since: cutAt });
  await duel.push(2);
  const back = await user.untilState('online', { since: cutAt, withinMs: BACK_WITHIN_MS });
  await user.untilSeen(duel.pushed);
  await user.close();
  return `noticed ${seconds(noticed.at - cutAt)}, back ${seconds(back.at - cutAt)}`;
}

/** Nothing listens where the hub was, for 4 s. */
export async function refused(stage) {
  const { duel, network, user } = await stage.scene();
  const shutAt = Date.now();
  await network.refuse();
  await duel.push(2);
  await sleep(4000);
  const restoredAt = Date.now();
  await network.restore();
  const back = await user.untilState('online', { since: restoredAt, withinMs: BACK_WITHIN_MS });
  await user.untilSeen(duel.pushed);
  const { states } = await user.seen();
  const tries = states.filter(({ name, at }) => name === 'connecting' && at >= shutAt && at < restoredAt).length;
  ok(tries <= 4, 'whoever is refused does not hammer', `${tries} attempts in 4 s`);
  await user.close();
  return `back ${seconds(back.at - restoredAt)}, ${tries} attempts in 4 s`;
}

/** 240 KB through 32 KB/s, with up to 300 ms on the way: late, but all of it, and nobody takes it for dead. */
export async function throttle(stage) {
  const { duel, network, user } = await stage.scene({ pongTimeoutMs: 8000 });
  const slow = { bytesPerSecond: 32 * 1024, delayMs: 100, jitterMs: 200 };
  network.shape({ up: slow, down: slow });
  const startedAt = Date.now();
  await duel.push(30, 8 * 1024);
  const seen = await user.untilSeen(duel.pushed, 30_000);
  await user.expectStates([], startedAt, 'a slow network is not a lost connection');
  await user.close();
  return `30 events in ${seconds(seen.at(-1).at - startedAt)}`;
}

/** The device is offline, says so, and is online again. */
export async function offline(stage) {
  const { duel, network, user } = await stage.scene();
  const lostAt = Date.now();
  network.blackHole();
  const real = await user.page.setOffline(true);
  await duel.push(2);
  const noticed = await user.untilState('waiting', { since: lostAt, withinMs: NOTICED_WITHIN_MS });
  const restoredAt = Date.now();
  await network.restore({ moved: true });
  await user.page.setOffline(false);
  const back = await user.untilState('online', { since: restoredAt, withinMs: BACK_WITHIN_MS });
  await user.untilSeen(duel.pushed);
  const { page } = await user.seen();
  equal(page.filter(({ event }) => event.endsWith('line')).map(({ event }) => event), ['offline', 'online'], 'the page was told');
  await user.close();
  return `noticed ${seconds(noticed.at - lostAt)}, back ${seconds(back.at - restoredAt)}${real ? '' : ' (events synthetic)'}`;
}

/**
 * What was given up arrives after all: handshakes that were stuck in a dead network reach the hub when the user is online again, each with
 * the ticket of the connection that is open.
 */
export async function lateHandshakes(stage) {
  const { duel, network, user } = await stage.scene({ connectTimeoutMs: 1000, maxDelayMs: 1000 });
  const taken = network.taken;
  network.blackHole();
  await duel.push(2);
  await until('three attempts are stuck', () => network.taken >= taken + 3, 30_000);
  const restoredAt = Date.now();
  await network.restore({ later: true });
  await user.untilState('online', { since: restoredAt, withinMs: BACK_WITHIN_MS });
  await user.untilSeen(duel.pushed);
  const arrivedAt = Date.now();
  network.release();
  await user.until('it is online and stays so', ({ states }) => isSettled(states), BACK_WITHIN_MS);
  await duel.push(1);
  await user.untilSeen(duel.pushed);
  const later = (await user.seen()).states.filter(({ at }) => at >= arrivedAt).map(({ name, why }) => why ?? name);
  await user.close();
  return `after they arrived: ${later.join(', ') || 'nothing'}`;
}

function isSettled(states) {
  const { name, at } = states.at(-1);
  return name === 'online' && Date.now() - at > 2000;
}

/** A network that is never the same for a second, while the duel goes on. */
export async function flapping(stage) {
  const { duel, network, user } = await stage.scene({ pingIntervalMs: 500, pongTimeoutMs: 700, connectTimeoutMs: 1000, maxDelayMs: 1000 });
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
  const random = randomOf(seed);
  const one = (list) => list[Math.floor(random() * list.length)];
  const slow = { bytesPerSecond: 2000, delayMs: 50, jitterMs: 400 };
  const faults = [
    () => network.cut(), () => network.blackHole(), () => network.blackHole({ up: false }), () => network.blackHole({ down: false }),
    () => network.shape({ up: slow, down: slow }), () => network.refuse(), () => network.restore(), () => network.restore({ moved: true }),
  ];
  const until15 = Date.now() + 15_000;
  while (Date.now() < until15) {
    await one(faults)();
    await duel.push(1);
    await sleep(100 + random() * 900);
    if (random() < 0.5) await network.restore({ moved: random() < 0.5 });
    await sleep(random() * 700);
  }
  const restoredAt = Date.now();
  await network.restore({ moved: true });
  const seen = await user.untilSeen(duel.pushed, BACK_WITHIN_MS);
  const { states } = await user.seen();
  ok(states.every(({ name }) => name !== 'closed'), `it never gives up (SEED=${seed})`);
  await user.close();
  const times = states.filter(({ name }) => name === 'online').length;
  const late = seconds(Math.max(0, seen.at(-1).at - restoredAt));
  return `${seen.length} events, ${times} connections, all there ${late} after the end (SEED=${seed})`;
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function randomOf(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
