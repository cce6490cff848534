// The page goes away and comes back, or is there twice.

import { setTimeout as sleep } from 'node:timers/promises';

import { equal, ok, poll, until } from '../lib/check.mjs';
import { BACK_WITHIN_MS, NOTICED_WITHIN_MS } from '../lib/stage.mjs';
import { seconds, User } from '../lib/user.mjs';

export async function reload(stage) {
  const { duel, user } = await stage.scene();
  const asked = duel.tickets.asked;
  const startedAt = Date.now();
  await Promise.all([user.page.reload(), duel.push(2)]);
  const back = await user.untilState('online', { since: startedAt, withinMs: BACK_WITHIN_MS });
  const { connected } = await user.seen();
  equal(connected.map(({ recovered }) => recovered), [true], 'a reload resumes the session');
  await duel.push(1);
  await user.untilSeen(duel.pushed);
  equal(duel.tickets.asked, asked, 'a reload needs no new ticket');
  await user.close();
  return `back ${seconds(back.at - startedAt)}`;
}

/** Away to another page of the app and back, twice: by Back, and by Forward. */
export async function backAndForward(stage) {
  const { duel, network, user } = await stage.scene();
  const figures = [];
  const leaveAndReturn = async (name, leave, comeBack) => {
    await leave();
    await poll(() => network.open === 0);
    equal(network.open, 0, 'a page that is left keeps no connection');
    await duel.push(1);
    const startedAt = Date.now();
    await comeBack();
    const back = await user.untilState('online', { since: startedAt, withinMs: BACK_WITHIN_MS });
    await user.untilSeen(duel.pushed);
    const { connected, page } = await user.seen();
    const { recovered } = connected.at(-1);
    const { persisted } = page.findLast(({ event }) => event === 'pageshow');
    // Firefox gives a page that it loads anew the sessionStorage of the page before it in its cache, as that once was.
    const mayBeNew = stage.browser.name === 'Firefox' && !persisted && name === 'again';
    ok(recovered || mayBeNew, `${name}: who comes back is recovered`, `recovered: ${recovered}`);
    const how = persisted ? 'bfcache' : recovered ? 'loaded anew' : 'loaded anew, as a first connection';
    figures.push(`${name} ${seconds(back.at - startedAt)} (${how})`);
  };
  await leaveAndReturn('back', () => user.page.goto(stage.elsewhere()), () => user.page.back());
  await leaveAndReturn('again', () => user.page.forward(), () => user.page.back());
  equal(await savedSessions(user), [], 'a page that is there keeps no session for another one');
  await user.close();
  return figures.join(', ');
}

function savedSessions(user) {
  return user.page.evaluate(() => Object.keys(sessionStorage).filter((key) => key !== 'seen'));
}

export async function background(stage) {
  const { duel, user } = await stage.scene({ pongTimeoutMs: 8000 });
  const hiddenAt = Date.now();
  await user.page.hide();
  await user.until('the page is hidden', ({ page }) => page.at(-1)?.event === 'hidden');
  await duel.push(2);
  const seen = await user.untilSeen(duel.pushed);
  const late = seen.at(-1).at - hiddenAt;
  // Long enough for the browser to make timers rare.
  await sleep(3000);
  await user.page.show();
  await user.until('the page is visible', ({ page }) => page.at(-1)?.event === 'visible');
  await duel.push(1);
  await user.untilSeen(duel.pushed);
  await user.expectStates([], hiddenAt, 'the background is no reason to leave');
  await user.close();
  return `events in the background within ${seconds(late)}`;
}

/** Nobody runs in the background: the connection is gone when the page is in front again. */
export async function backgroundLost(stage) {
  const { duel, network, user } = await stage.scene();
  await user.page.hide();
  await user.until('the page is hidden', ({ page }) => page.at(-1)?.event === 'hidden');
  network.blackHole();
  await duel.push(2);
  await sleep(500);
  const shownAt = Date.now();
  await network.restore({ moved: true });
  await user.page.show();
  const back = await user.untilState('online', { since: shownAt, withinMs: BACK_WITHIN_MS });
  await user.untilSeen(duel.pushed);
  await user.close();
  return `back ${seconds(back.at - shownAt)}`;
}

/** The browser stops a page in the background altogether. */
export async function frozen(stage) {
  const { duel, user } = await stage.scene();
  if (!user.page.freeze) {
    await user.close();
    return 'cannot be had';
  }
  await user.page.hide();
  await user.page.freeze();
  await user.until('the page is frozen', ({ page }) => page.at(-1)?.event === 'freeze');
  await duel.push(2);
  const thawedAt = Date.now();
  await user.page.thaw();
  await user.page.show();
  const back = await user.untilState('online', { since: thawedAt, withinMs: BACK_WITHIN_MS });
  await user.untilSeen(duel.pushed);
  equal(await savedSessions(user), [], 'a page that is there keeps no session for another one');
  await user.close();
  return `back ${seconds(back.at - thawedAt)}`;
}

/** A page of the app leads to another one of the same duel, with the same storageKey; then Back, Forward, Back. */
export async function backWithinTheApp(stage) {
  const { duel, user } = await stage.scene();
  const asked = duel.tickets.asked;
  const arrive = async (since) => {
    await user.untilState('online', { since, withinMs: BACK_WITHIN_MS });
    await user.until('the newest event is seen', ({ seen }) => seen.at(-1)?.n === duel.pushed.at(-1));
  };
  const address = await user.page.evaluate(() => location.href);
  const ways = [() => user.page.goto(`${address}&again=1`), () => user.page.back(), () => user.page.forward(), () => user.page.back()];
  const kinds = [];
  for (const go of ways) {
    const leftAt = Date.now();
    await go();
    await duel.push(1);
    await arrive(leftAt);
    const { seen, states, page } = await user.seen();
    const numbers = seen.map(({ n }) => n);
    equal(numbers, [...new Set(numbers)].sort((a, b) => a - b), 'each event at most once, in order');
    ok(states.every(({ name }) => name !== 'closed'), 'no page ends the session of another one');
    kinds.push(page.findLast(({ event }) => event === 'pageshow').persisted ? 'bfcache' : 'anew');
  }
  await user.close();
  return `${kinds.join(', ')}; ${duel.tickets.asked - asked} new tickets`;
}

/** The whole browser sleeps, as on a device whose lid is closed: with the network still there, and with another one afterwards. */
export async function asleep(stage) {
  // A pong may be some seconds late on a busy machine, and is not overdue before the sleep's end.
  const { duel, network, user } = await stage.scene({ pongTimeoutMs: 5000 });
  const nap = async (meanwhile) => {
    stage.browser.sleep();
    try {
      await duel.push(2);
      await sleep(6000);
      await meanwhile();
    } finally {
      stage.browser.wake();
    }
    return Date.now();
  };
  // So late that a ping is always under way when the sleep begins, and seems to be overdue at its end.
  network.shape({ down: { delayMs: 950 } });
  await sleep(2000);
  const sleptAt = Date.now();
  const wokenAt = await nap(() => {});
  const seen = await user.untilSeen(duel.pushed);
  await sleep(3000);
  await user.expectStates([], sleptAt, 'a connection that is still there is kept');

  network.blackHole();
  const againAt = await nap(() => network.restore({ moved: true }));
  const noticed = await user.untilState('waiting', { since: againAt, withinMs: NOTICED_WITHIN_MS });
  const back = await user.untilState('online', { since: againAt, withinMs: BACK_WITHIN_MS });
  await user.untilSeen(duel.pushed);
  await user.close();
  const kept = seconds(Math.max(0, seen.at(-1).at - wokenAt));
  return `kept: events ${kept}; lost: noticed ${seconds(noticed.at - againAt)}, back ${seconds(back.at - againAt)}`;
}

/** One user in two tabs, and another user who comes and goes. */
export async function twoTabs(stage) {
  const { duel, network, user } = await stage.scene({ pongTimeoutMs: 8000 });
  const second = await stage.open(duel, network, { pongTimeoutMs: 8000 });
  await second.untilState('online');
  const startedAt = Date.now();
  await duel.push(2);
  await user.untilSeen(duel.pushed);
  // The second came when the state was event 2.
  await second.untilSeen(duel.pushed.slice(1));
  const other = await stage.open(duel, network, { nth: 1 });
  await other.untilState('online');
  const is = (online) => ({ presence }) => presence.some((one) => one.userId === other.id && one.online === online);
  for (const tab of [user, second]) await tab.until('the other user has come', is(true));
  await other.close();
  for (const tab of [user, second]) await tab.until('the other user has gone', is(false));
  for (const tab of [user, second]) await tab.expectStates([], startedAt, 'the tabs leave each other alone');
  const { at } = (await user.seen()).seen.at(-1);
  await second.close();
  await user.close();
  return `both within ${seconds(at - startedAt)}`;
}

/** "Duplicate tab" copies sessionStorage; it must not look like a stolen session. Also after the page was left and came back. */
export async function duplicatedTab(stage) {
  const { duel, user } = await stage.scene({ pongTimeoutMs: 8000 });
  const figures = [];
  for (const before of ['at once', 'after bfcache']) {
    if (before === 'after bfcache') {
      await user.page.goto(stage.elsewhere());
      const cameBackAt = Date.now();
      await user.page.back();
      await user.untilState('online', { since: cameBackAt, withinMs: BACK_WITHIN_MS });
    }
    const startedAt = Date.now();
    const copy = new User(`${stage.browser.name}, the copy`, await user.page.duplicate(), user.id);
    const online = await copy.untilState('online', { withinMs: BACK_WITHIN_MS });
    equal((await copy.seen()).connected[0].recovered, null, `duplicated ${before}: the copy is a session of its own`);
    await duel.push(2);
    await copy.until('the copy sees what is new', ({ seen }) => seen.at(-1)?.n === duel.pushed.at(-1));
    await user.untilSeen(duel.pushed);
    await user.expectStates([], startedAt, `duplicated ${before}: the first tab goes on`);
    await copy.close();
    figures.push(seconds(online.at - startedAt));
  }
  await user.close();
  return `copy online ${figures.join(', ')}`;
}

/** close(), in each state that a connection may be in, leaves nothing. */
export async function close(stage) {
  for (const state of ['online', 'connecting', 'waiting']) {
    const { network, user } = await stage.scene();
    if (state === 'connecting') {
      network.blackHole();
      await user.untilState('waiting', { withinMs: BACK_WITHIN_MS });
      await user.until('it connects', ({ states }) => states.at(-1).name === 'connecting');
    } else if (state === 'waiting') {
      await network.refuse();
      await user.until('it waits', ({ states }) => states.at(-1).name === 'waiting');
    }
    const during = await user.page.evaluate(() => {
      const { name } = window.duel.state;
      window.duel.close();
      return name;
    });
    // What is under way may have ended by itself.
    ok(during === state || state !== 'online', `closed while ${state}`, during);
    const { reason } = await user.untilState('closed');
    equal(reason, 'closed_by_app', `while ${state}: closed by the app`);
    const { leftovers } = await user.seen();
    equal(leftovers, { timers: 0, listeners: 0, sockets: 0 }, `while ${state}: close() leaves nothing behind`);
    if (state !== 'online') await network.restore({ moved: true });
    const taken = network.taken;
    await sleep(3000);
    equal(network.taken, taken, `while ${state}: no further connection`);
    if (state === 'online') await until('the connection is closed', () => network.open === 0);
    equal((await user.seen()).states.at(-1).name, 'closed', `while ${state}: nothing happens any more`);
    await user.close();
  }
  return 'nothing left';
}
