// Random networks, hubs and pages. Whatever happens: never two sockets, nothing missed or doubled while recovered, and back online
// when the network is.

import fc from 'fast-check';
import { expect, test } from 'vitest';

import { World } from './model/world.js';

type Move = (world: World) => void | Promise<void>;

const RUNS = Number(process.env['RUNS'] ?? 400);

const moves = fc.oneof(
  move('push', fc.constantFrom('duel_update', 'score', 'tick'), (type) => (world) => void world.hub.push(type, type === 'tick')),
  move('pass', fc.integer({ min: 0, max: 40_000 }), (ms) => (world) => world.pass(ms)),
  move('pass a little', fc.integer({ min: 0, max: 300 }), (ms) => (world) => world.pass(ms)),
  move('network', fc.constantFrom('up', 'black hole', 'refused'), (mode) => (world) => world.network.set(mode)),
  move('cut', fc.constant(0), () => (world) => world.network.cut()),
  move('restart', fc.record({ keeps: fc.boolean(), says: fc.boolean() }), (how) => (world) => world.hub.restart(how)),
  move('trim', fc.nat(4), (count) => (world) => world.hub.trim(count)),
  move('retry word', fc.constantFrom('too_slow', 'internal'), (word) => (world) => world.hub.disconnect(word, 1011, true)),
  move('session ends', fc.constant(0), () => (world) => world.hub.disconnect('invalid_ticket', 4501, false)),
  move('page', fc.constantFrom('pagehide', 'pageshow', 'online', 'offline'), (name) => (world) => world.page.tell('window', name)),
  move('lifecycle', fc.constantFrom('freeze', 'resume'), (name) => (world) => world.page.tell('document', name)),
  move('visibility', fc.boolean(), (visible) => (world) => world.page.show(visible)),
  move('sleep', fc.integer({ min: 0, max: 600_000 }), (ms) => (world) => world.sleep(ms)),
  move('noise', fc.constantFrom('{', '{"type":"x","n":99}', '{"type":"duel_update","payload":{"duel_id":1}}'), (text) => (world) => world.hub.broadcast(text)),
);

function move<T>(name: string, given: fc.Arbitrary<T>, make: (value: T) => Move): fc.Arbitrary<Move> {
  return given.map((value) => Object.assign(make(value), { [fc.toStringMethod]: () => `${name} ${JSON.stringify(value)}` }));
}

test('nothing is missed, nothing doubled, and there is one socket at most', { timeout: 120_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(moves, { minLength: 1, maxLength: 40 }), fc.nat(), fc.integer({ min: 1, max: 2000 }), async (moves, seed, slowest) => {
      const world = new World(seed);
      try {
        world.network.delay = () => Math.random() * slowest;
        const app = world.open({ storageKey: 'duel' });
        for (const move of moves) await move(world);
        // Now all is well, and the page is in front.
        world.network.set('up');
        world.network.delay = () => 20;
        world.page.tell('window', 'pageshow');
        await world.pass(60_000);
        expect(app.duel.state.name).toBe('online');
        world.hub.push();
        await world.pass(1000);
        expect(app.seqs.at(-1)).toBe(world.hub.seq);
        expect(app.faults).toEqual([]);
        expect(world.network.mostOpen).toBe(1);
        app.duel.close();
        world.network.set('up');
        await world.pass(10_000);
        expect([world.network.open, world.page.listeners, world.page.stored.size]).toEqual([0, 0, 0]);
      } finally {
        world.end();
      }
    }),
    { numRuns: RUNS },
  );
});
