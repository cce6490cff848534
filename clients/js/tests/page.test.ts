// What happens to the page: reloads, the back/forward cache, frozen tabs, Telegram, two tabs.

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { World } from './model/world.js';

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(() => world.end());

describe('a reload', () => {
  test('resumes', async () => {
    const before = world.open({ storageKey: 'duel:77:1' });
    await world.pass(100);
    world.hub.push();
    await world.pass(100);
    world.page.tell('window', 'pagehide');
    world.hub.push();
    await world.pass(100);
    expect([world.network.open, before.duel.state]).toEqual([0, { name: 'waiting', nextAttemptAt: null, why: 'The page sleeps' }]);
    // The page that goes away runs no further code.
    const after = world.open({ storageKey: 'duel:77:1' });
    await world.pass(100);
    expect(after.connected).toMatchObject([{ recovered: true }]);
    expect([after.events.map(({ seq, delivery }) => [seq, delivery]), after.tickets]).toEqual([[[2, 'replayed']], 0]);
  });

  test('is not stopped by an attempt of the page before, which the hub takes late', async () => {
    world.open({ storageKey: 'duel' });
    await world.pass(100);
    world.network.cut();
    const { accept } = world.hub;
    const late: (() => void)[] = [];
    world.hub.accept = (side, url, protocols) => late.push(() => accept.call(world.hub, side, url, protocols));
    await world.pass(1100);
    world.hub.accept = accept;
    world.page.tell('window', 'pagehide');
    const after = world.open({ storageKey: 'duel' });
    await world.pass(100);
    late[0]!();
    await world.pass(3000);
    expect([late.length, world.hub.takeOvers, after.duel.state.name]).toEqual([1, 2, 'online']);
  });

  test('begins anew without a key, with another key, or in another duel', async () => {
    world.open({ storageKey: 'duel:77:1' });
    await world.pass(100);
    world.page.tell('window', 'pagehide');
    for (const options of [{}, { storageKey: 'duel:77:2' }, { storageKey: 'duel:77:1', duelId: 78 }]) {
      const app = world.open(options);
      await world.pass(100);
      expect(app.tickets).toBe(1);
      app.duel.close();
    }
  });

  test('begins anew where there is no storage, or nonsense in it', async () => {
    world.page.stored.set('nonsense', '{"ticket":7}');
    world.page.stored.set('worse', '{');
    for (const storageKey of ['nonsense', 'worse', '__proto__']) {
      const app = world.open({ storageKey });
      await world.pass(100);
      expect([app.duel.state.name, app.tickets]).toEqual(['online', 1]);
      app.duel.close();
    }
    vi.stubGlobal('sessionStorage', undefined);
    const app = world.open({ storageKey: 'duel' });
    await world.pass(100);
    world.page.tell('window', 'pagehide');
    world.page.tell('window', 'pageshow');
    await world.pass(3000);
    expect(app.duel.state.name).toBe('online');
    vi.unstubAllGlobals();
  });
});

test('a page of the back/forward cache comes back to where it was', async () => {
  const app = world.open({ storageKey: 'duel' });
  await world.pass(100);
  world.hub.push();
  await world.pass(100);
  world.page.tell('window', 'pagehide');
  world.sleep(600_000);
  world.hub.push();
  expect(world.network.open).toBe(0);
  world.page.tell('window', 'pageshow');
  await world.pass(1200);
  expect([app.duel.state.name, app.seqs, app.tickets]).toEqual(['online', [1, 2], 1]);
});

test('a frozen tab closes its socket, and opens one when it resumes', async () => {
  const app = world.open();
  await world.pass(5000);
  world.page.tell('document', 'freeze');
  expect(app.duel.state.name).toBe('waiting');
  await world.pass(3_600_000);
  expect(world.network.opened).toBe(1);
  world.page.tell('document', 'resume');
  await world.pass(200);
  expect(app.duel.state.name).toBe('online');
});

test('a tab that is duplicated copies no ticket', async () => {
  world.open({ storageKey: 'duel' });
  await world.pass(100);
  expect(world.page.stored.size).toBe(0);
  world.page.tell('window', 'pagehide');
  expect(world.page.stored.size).toBe(1);
  world.page.tell('window', 'pageshow');
  await world.pass(2000);
  expect(world.page.stored.size).toBe(0);
});

test('two tabs are two sessions, and both get everything', async () => {
  const tabs = [world.open({ storageKey: 'duel' }), world.open({ storageKey: 'duel' })];
  await world.pass(100);
  world.network.cut();
  world.hub.push();
  await world.pass(3000);
  world.hub.push();
  await world.pass(100);
  for (const tab of tabs) expect([tab.duel.state.name, tab.seqs, tab.tickets]).toEqual(['online', [1, 2], 1]);
  expect(world.hub.sessionsEnded).toBe(0);
});

test('an app that comes to the front tries at once', async () => {
  const app = world.open();
  await world.pass(100);
  world.network.set('refused');
  await world.pass(300_000);
  world.network.set('up');
  app.duel.wake();
  await world.pass(1100);
  expect(app.duel.state.name).toBe('online');
});

test('a page that flickers does not hammer the hub', async () => {
  world.network.set('refused');
  world.open();
  for (let times = 0; times < 100; times += 1) {
    world.page.show(times % 2 === 0);
    world.page.tell('window', 'online');
    await world.pass(100);
  }
  expect(world.network.opened).toBeLessThanOrEqual(15);
});

test('a hidden page whose timers run once a minute stays connected', async () => {
  const app = world.open({ pingIntervalMs: 60_000 });
  world.page.show(false);
  await world.pass(1_800_000);
  world.page.show(true);
  await world.pass(5000);
  expect(app.names).toEqual(['connecting', 'online']);
});

test("Telegram's events count, too", async () => {
  const listeners = new Map<string, () => void>();
  Object.assign(world.page.window, {
    Telegram: { WebApp: {
      onEvent: (name: string, listener: () => void) => listeners.set(name, listener),
      offEvent: (name: string) => listeners.delete(name),
    } },
  });
  const app = world.open();
  await world.pass(100);
  world.network.set('refused');
  await world.pass(300_000);
  world.network.set('up');
  listeners.get('activated')!();
  await world.pass(1100);
  expect(app.duel.state.name).toBe('online');
  app.duel.close();
  expect(listeners.size).toBe(0);
});
