// One connection: what it opens, what it hands over, how it comes back.

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { connect } from '../src/index.js';
import { AHEAD_MS, DUEL, USER } from './model/hub.js';
import { World } from './model/world.js';

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(() => world.end());

describe('the first connection', () => {
  test('shows the ticket in a subprotocol and gets the present state, then what is pushed', async () => {
    const opened = vi.fn();
    const { WebSocket } = world.network;
    class Seen extends WebSocket {
      constructor(url: string, protocols: string[]) {
        super(url, protocols);
        opened(url, protocols);
      }
    }
    world.hub.push('score');
    world.hub.push('tick', true);
    world.hub.push('score');
    const app = world.open({ WebSocket: Seen });
    expect(app.duel.state).toEqual({ name: 'connecting' });
    await world.pass(100);
    expect(opened.mock.calls).toEqual([['ws://hub/ws', ['duelhub.v1', 'fresh.4']]]);
    expect(app.names).toEqual(['connecting', 'online']);
    expect(app.connected).toEqual([{ duelId: DUEL, userId: USER, recovered: null, online: [USER] }]);
    world.hub.push('score');
    await world.pass(100);
    expect(app.events.map(({ type, seq, delivery }) => [type, seq, delivery])).toEqual([['score', 3, 'state'], ['score', 4, 'live']]);
    expect(app.events[0]!.payload).toEqual({ duel_id: DUEL, n: 3 });
    expect([app.duel.userId, app.duel.duelId, app.duel.online]).toEqual([USER, DUEL, [USER]]);
  });

  test('is not opened by whoever closes it at once', async () => {
    const app = world.open();
    app.duel.close();
    await world.pass(60_000);
    expect([world.network.opened, app.tickets]).toEqual([0, 0]);
    expect(app.states).toEqual([{ name: 'closed', reason: 'closed_by_app' }]);
  });

  test('takes a path in a page, and keeps what the address has', async () => {
    const urls: string[] = [];
    class Seen extends world.network.WebSocket {
      constructor(url: string, protocols: string[]) {
        super(url, protocols);
        urls.push(url);
      }
    }
    world.open({ url: '/ws?shard=2', WebSocket: Seen });
    await world.pass(100);
    world.hub.push();
    await world.pass(100);
    world.network.cut();
    await world.pass(2000);
    expect(urls).toEqual(['wss://game.example/ws?shard=2', 'wss://game.example/ws?shard=2&resume=e1:1']);
  });

  test('with an address that is none waits and says why', async () => {
    const WebSocket = class {
      constructor() {
        throw new SyntaxError('The URL is invalid');
      }
    };
    const app = world.open({ WebSocket: WebSocket as never });
    await world.pass(1);
    expect(app.duel.state).toMatchObject({ name: 'waiting', why: expect.stringContaining('The URL is invalid') });
  });

  test('to a server that is no duelhub is not taken', async () => {
    const app = world.open();
    world.hub.accept = (side) => side.open('other.v1');
    await world.pass(100);
    expect(app.duel.state).toMatchObject({ name: 'waiting', why: 'The server is no duelhub' });
    expect(world.network.open).toBe(0);
  });
});

describe('what the hub sends', () => {
  test('that is unknown is ignored, and a message of another duel never reaches the app', async () => {
    const app = world.open();
    await world.pass(100);
    for (const text of [
      'nonsense', '[]', 'null', '7', '{}', '{"type":7}', '{"type":"balloon","seq":1}', '{"type":"balloon"}',
      '{"type":"duel_update","seq":1,"payload":{"duel_id":78,"n":1}}', '{"type":"duel_update","seq":2,"payload":{}}',
      '{"type":"duel_update","payload":{"duel_id":77}}', '{"type":"presence","duel_id":78,"user_id":2,"online":true}',
      '{"type":"duel_closed","duel_id":78,"seq":3,"status":"finished"}',
    ]) world.hub.broadcast(text);
    await world.pass(1000);
    expect([app.events, app.presence, app.closed]).toEqual([[], [], []]);
    expect(app.duel.state.name).toBe('online');
  });

  test('of presence keeps the list of who is online', async () => {
    const app = world.open();
    await world.pass(100);
    const before = app.duel.online;
    world.hub.broadcast(`{"type":"presence","duel_id":${DUEL},"user_id":2,"online":true}`);
    await world.pass(100);
    expect(app.duel.online).toEqual([USER, 2]);
    expect(before).toEqual([USER]);
    world.hub.broadcast(`{"type":"presence","duel_id":${DUEL},"user_id":2,"online":false}`);
    await world.pass(100);
    expect(app.duel.online).toEqual([USER]);
    expect(app.presence).toEqual([{ userId: 2, online: true }, { userId: 2, online: false }]);
  });

  test('reaches the other listeners if one throws, and its error is not lost', async () => {
    const thrown: unknown[] = [];
    const note = (error: unknown): void => void thrown.push(error);
    process.on('uncaughtException', note);
    try {
      const app = world.open();
      app.duel.on('event', () => {
        throw new Error('the app');
      });
      const seen = vi.fn();
      const end = app.duel.on('event', seen);
      await world.pass(100);
      world.hub.push();
      await world.pass(100);
      end();
      world.hub.push();
      await world.pass(100);
      expect(seen).toHaveBeenCalledTimes(1);
      expect(app.duel.state.name).toBe('online');
      await vi.waitFor(() => expect(thrown).toHaveLength(2));
    } finally {
      process.off('uncaughtException', note);
    }
  });
});

describe('coming back', () => {
  test('resumes with the resume ticket from its position: nothing is missed, nothing comes twice', async () => {
    const app = world.open();
    await world.pass(100);
    world.hub.push();
    await world.pass(100);
    world.network.cut();
    await world.pass(10);
    world.hub.push();
    world.hub.push();
    await world.pass(2000);
    expect(app.connected.at(-1)!.recovered).toBe(true);
    expect(app.events.map(({ seq, delivery }) => [seq, delivery])).toEqual([[1, 'live'], [2, 'replayed'], [3, 'replayed']]);
    expect([app.tickets, app.faults]).toEqual([1, []]);
  });

  test('under a new epoch goes on', async () => {
    const app = world.open();
    await world.pass(100);
    world.hub.push();
    await world.pass(100);
    world.hub.restart({ keeps: true, says: false });
    world.hub.push();
    await world.pass(2000);
    world.network.cut();
    world.hub.push();
    await world.pass(3000);
    expect(app.connected.map(({ recovered }) => recovered)).toEqual([null, true, true]);
    expect(app.seqs).toEqual([1, 2, 3]);
  });

  test('when something is gone forgets its position and takes the present state', async () => {
    const app = world.open();
    await world.pass(100);
    world.hub.push();
    world.hub.push();
    await world.pass(100);
    world.hub.restart({ keeps: false, says: false });
    world.hub.push('score');
    await world.pass(2000);
    expect(app.connected.map(({ recovered }) => recovered)).toEqual([null, false]);
    expect(app.events.at(-1)).toMatchObject({ type: 'score', seq: 1, delivery: 'state' });
    world.hub.push('score');
    await world.pass(100);
    expect(app.events.at(-1)).toMatchObject({ seq: 2, delivery: 'live' });
  });

  test('after a lost welcome shows the same ticket, and misses nothing', async () => {
    const app = world.open();
    await world.pass(100);
    world.network.cut();
    await world.pass(2000);
    // The answer to the next handshake is lost.
    world.network.cut();
    const { accept } = world.hub;
    world.hub.accept = (_side, url, protocols) => {
      accept.call(world.hub, { open: () => {}, send: () => {}, close: () => {} }, url, protocols);
      world.hub.accept = accept;
    };
    await world.pass(1500);
    world.hub.push();
    await world.pass(20_000);
    expect(app.duel.state.name).toBe('online');
    expect([app.tickets, app.seqs, app.faults]).toEqual([1, [1], []]);
  });

  for (const [how, giveUp] of [
    ['took too long', () => world.pass(4000)],
    ['was cut off', () => world.network.cut()],
    ['a page had begun that was left', () => world.page.tell('window', 'pagehide')],
  ] as const) {
    test(`is not stopped by its own attempt that ${how}, and that the hub takes late`, async () => {
      const app = world.open({ connectTimeoutMs: 3000 });
      await world.pass(100);
      world.network.cut();
      const { accept } = world.hub;
      const late: (() => void)[] = [];
      world.hub.accept = (side, url, protocols) => late.push(() => accept.call(world.hub, side, url, protocols));
      await world.pass(1100);
      world.hub.accept = accept;
      expect([app.duel.state.name, late.length]).toEqual(['connecting', 1]);
      await giveUp();
      world.page.tell('window', 'pageshow');
      await world.pass(3000);
      expect(app.duel.state.name).toBe('online');
      late[0]!();
      await world.pass(3000);
      world.hub.push();
      await world.pass(200);
      expect([app.duel.state.name, world.hub.takeOvers, app.seqs]).toEqual(['online', 2, [1]]);
    });
  }

  test('after several restarts uses the epoch of the last one', async () => {
    const app = world.open();
    for (let times = 0; times < 6; times += 1) {
      await world.pass(15_000);
      world.hub.push();
      await world.pass(100);
      world.hub.restart({ keeps: true, says: false });
    }
    await world.pass(3000);
    expect(app.connected.map(({ recovered }) => recovered)).toEqual([null, true, true, true, true, true, true]);
  });

  test('is at the time that the hub says', async () => {
    const app = world.open();
    await world.pass(100);
    world.hub.restart({ keeps: true, says: true });
    await world.pass(21);
    await world.pass(20);
    const at = Date.now();
    expect(app.duel.state).toMatchObject({ name: 'waiting', why: 'server_restart' });
    expect((app.duel.state as { nextAttemptAt: number }).nextAttemptAt - at).toBeGreaterThan(400);
    world.page.tell('window', 'online');
    world.page.show(true);
    await world.pass(400);
    expect(world.network.opened).toBe(1);
    await world.pass(200);
    expect(app.duel.state.name).toBe('online');
  });

  test('goes on for ever, with pauses that grow to their limit', async () => {
    const app = world.open({ maxDelayMs: 20_000 });
    await world.pass(100);
    world.network.set('refused');
    await world.pass(3_600_000);
    const attempts = world.network.opened;
    expect(attempts).toBeGreaterThan(3600 / 20);
    expect(attempts).toBeLessThan(3600 / 4);
    world.network.set('up');
    await world.pass(21_000);
    expect(app.duel.state.name).toBe('online');
    expect(app.tickets).toBe(1);
  });

  test('is slowed down if each connection ends soon', async () => {
    const app = world.open();
    app.duel.on('connected', () => setTimeout(() => world.hub.disconnect('too_slow', 4004, true), 100));
    await world.pass(120_000);
    expect(world.network.opened).toBeLessThan(30);
    expect(app.duel.state.name).not.toBe('closed');
  });

  test('has full jitter', async () => {
    const pauses: number[] = [];
    vi.spyOn(Math, 'random').mockReturnValue(0.5);
    world.network.set('refused');
    const app = world.open();
    let before = 0;
    app.duel.on('state', (state) => {
      if (state.name === 'waiting') pauses.push(state.nextAttemptAt! - Date.now());
      else before = Date.now();
    });
    await world.pass(120_000);
    expect(before).toBeGreaterThan(0);
    expect(pauses.slice(0, 7)).toEqual([500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
  });
});

describe('a dead network', () => {
  test('is noticed when a pong is missed', async () => {
    const app = world.open();
    await world.pass(16_000);
    world.network.set('black hole');
    const since = Date.now();
    await world.pass(15_000 + 8000);
    expect(app.names.at(-1)).not.toBe('online');
    expect(Date.now() - since).toBeLessThanOrEqual(15_000 + 10_000);
  });

  test('is noticed at once when the page comes back', async () => {
    const app = world.open();
    await world.pass(16_000);
    world.network.set('black hole');
    await world.pass(1000);
    world.page.show(true);
    await world.pass(2500);
    expect(app.duel.state.name).not.toBe('online');
  });

  test('is noticed however often the page comes back', async () => {
    const app = world.open();
    await world.pass(16_000);
    world.network.set('black hole');
    for (let times = 0; times < 30; times += 1) {
      world.page.show(true);
      await world.pass(100);
    }
    expect(app.names.slice(0, 3)).toEqual(['connecting', 'online', 'waiting']);
  });

  test('that was none is not mistaken for one: a page that was held up reads what has come', async () => {
    const app = world.open();
    await world.pass(16_000);
    // The ping of 30 s is out, and its pong on the way, when the page is held up.
    world.network.delay = () => 5000;
    await world.pass(14_500);
    world.sleep(20_000);
    await world.pass(12_000);
    world.network.delay = () => 20;
    await world.pass(60_000);
    expect([app.names, world.network.opened]).toEqual([['connecting', 'online'], 1]);
  });

  test('that answers slowly is a live one', async () => {
    world.network.delay = () => 3000;
    const app = world.open();
    await world.pass(300_000);
    expect(app.names).toEqual(['connecting', 'online']);
  });

  test('while connecting ends the attempt', async () => {
    world.network.set('black hole');
    const app = world.open({ connectTimeoutMs: 10_000 });
    await world.pass(10_000);
    expect(app.duel.state).toMatchObject({ name: 'waiting', why: 'The connection takes too long' });
    world.network.set('up');
    await world.pass(3000);
    expect(app.duel.state.name).toBe('online');
  });
});

describe('ack', () => {
  test('is sent newest only, not more often than four times a second, and again after a reconnect', async () => {
    const app = world.open();
    const sent: string[] = [];
    const { receive } = world.hub;
    world.hub.receive = (side, text) => {
      if (text.includes('ack')) sent.push(text);
      receive.call(world.hub, side, text);
    };
    await world.pass(100);
    for (let seq = 1; seq <= 10; seq += 1) {
      world.hub.push();
      app.duel.ack(seq);
    }
    app.duel.ack(3);
    await world.pass(1000);
    expect(sent).toEqual(['{"type":"ack","seq":1}', '{"type":"ack","seq":10}']);
    world.network.cut();
    await world.pass(2000);
    expect(sent.slice(2)).toEqual(['{"type":"ack","seq":10}']);
    world.hub.restart({ keeps: false, says: false });
    world.hub.push();
    await world.pass(2000);
    expect(sent).toHaveLength(3);
    app.duel.ack(1);
    await world.pass(1000);
    expect(sent.slice(3)).toEqual(['{"type":"ack","seq":1}']);
  });
});

test("the hub's clock is known to half a round trip, and the smallest one wins", async () => {
  const delays = [200, 60, 90, 20, 150];
  let n = 0;
  world.network.delay = () => delays[n++ % delays.length]!;
  const app = world.open();
  expect(app.duel.clock.uncertaintyMs).toBe(Infinity);
  await world.pass(120_000);
  const { offsetMs, uncertaintyMs } = app.duel.clock;
  expect(Math.abs(offsetMs - AHEAD_MS)).toBeLessThanOrEqual(uncertaintyMs);
  expect(uncertaintyMs).toBeLessThan(60);
  expect(Math.abs(app.duel.serverNow() - Date.now() - AHEAD_MS)).toBeLessThanOrEqual(uncertaintyMs);
});

test("when the device's clock is set, the hub's time stays right", async () => {
  const app = world.open();
  await world.pass(5000);
  const before = app.duel.serverNow();
  world.setClock(-7_200_000);
  expect(app.duel.clock.uncertaintyMs).toBe(Infinity);
  expect(Math.abs(app.duel.serverNow() - before)).toBeLessThan(50);
});

describe('close()', () => {
  test('leaves nothing behind', async () => {
    const app = world.open({ storageKey: 'duel' });
    await world.pass(100);
    expect(world.page.listeners).toBeGreaterThan(0);
    app.duel.ack(1);
    app.duel.close();
    app.duel.close();
    await world.pass(100);
    expect(app.states.at(-1)).toEqual({ name: 'closed', reason: 'closed_by_app' });
    expect([world.page.listeners, world.network.sockets.size, vi.getTimerCount(), world.page.stored.size]).toEqual([0, 0, 0, 0]);
    const opened = world.network.opened;
    for (const name of ['pageshow', 'online']) world.page.tell('window', name);
    app.duel.wake();
    await world.pass(100_000);
    expect([world.network.opened, app.names.filter((name) => name === 'closed')]).toEqual([opened, ['closed']]);
  });

  for (const name of ['connecting', 'waiting']) {
    test(`in a listener of ${name} opens nothing`, async () => {
      world.network.set('refused');
      const app = world.open();
      app.duel.on('state', (state) => state.name === name && app.duel.close());
      await world.pass(60_000);
      expect([app.names.at(-1), world.network.opened]).toEqual(['closed', name === 'connecting' ? 0 : 1]);
      expect(vi.getTimerCount()).toBe(0);
    });
  }

  test('in a listener is the end of what follows', async () => {
    const app = world.open();
    app.duel.on('state', ({ name }) => name === 'online' && app.duel.close());
    world.hub.push();
    await world.pass(1000);
    expect([app.connected, app.events]).toEqual([[], []]);
    expect(vi.getTimerCount()).toBe(0);
  });
});

test('needs no page', async () => {
  world.end();
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date', 'performance'] });
  const duel = connect({ url: 'ws://hub/ws', WebSocket: world.network.WebSocket, ticket: () => world.hub.issue(), storageKey: 'x' });
  await vi.advanceTimersByTimeAsync(100);
  expect(duel.state.name).toBe('online');
  duel.close();
  vi.useRealTimers();
  world = new World();
});
