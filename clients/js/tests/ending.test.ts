// What each word and each close code of the hub wants (README, "Closing"), and what the app's ticket function may say.

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { World } from './model/world.js';

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(() => world.end());

describe('words that end it', () => {
  for (const [word, code] of [
    ['duel_access_denied', 4502], ['duel_closed', 4503], ['connection_replaced', 4504], ['a_word_of_a_newer_hub', 4599],
  ] as const) {
    test(word, async () => {
      const app = world.open();
      await world.pass(100);
      world.hub.disconnect(word, code, false);
      await world.pass(100_000);
      expect(app.duel.state).toEqual({ name: 'closed', reason: word });
      expect([world.network.opened, app.tickets, vi.getTimerCount()]).toEqual([1, 1, 0]);
    });
  }

  test('are known by the code if the word was lost', async () => {
    for (const [code, reason] of [[4502, 'duel_access_denied'], [4503, 'duel_closed'], [4504, 'connection_replaced'], [4999, 'stopped']]) {
      const app = world.open();
      world.hub.accept = (side) => {
        side.open('duelhub.v1');
        side.close(code as number, '');
      };
      await world.pass(100);
      expect(app.duel.state).toEqual({ name: 'closed', reason });
    }
  });

  test('have the reason that the backend gave', async () => {
    const app = world.open();
    world.hub.accept = (side) => {
      side.open('duelhub.v1');
      side.send('{"type":"error","message":"duel_access_denied","retry":false}');
      side.close(4502, 'You were reported');
    };
    await world.pass(100);
    expect(app.duel.state).toEqual({ name: 'closed', reason: 'duel_access_denied', message: 'You were reported' });
  });
});

describe('words that want it back', () => {
  for (const [word, code] of [
    ['connection_timeout', 4003], ['too_slow', 4004], ['message_too_large', 1009], ['internal', 1011], ['server_restart', 1012],
    ['a_word_of_a_newer_hub', 4599],
  ] as const) {
    test(word, async () => {
      const app = world.open();
      await world.pass(100);
      world.hub.disconnect(word, code, true);
      world.hub.push();
      await world.pass(3000);
      expect([app.duel.state.name, app.tickets, app.seqs]).toEqual(['online', 1, [1]]);
    });
  }

  test('codes without a word', async () => {
    const app = world.open();
    for (const code of [1000, 1001, 1002, 1006, 1007, 1008, 1013, 4000, 4499, 3000]) {
      await world.pass(11_000);
      expect(app.duel.state.name, `before ${code}`).toBe('online');
      for (const socket of world.network.sockets) socket.onclose!({ code, reason: '' });
    }
    await world.pass(3000);
    expect([app.duel.state.name, app.tickets]).toEqual(['online', 1]);
  });
});

describe('words about the ticket', () => {
  for (const [word, code, retry] of [['ticket_expired', 4001, true], ['ticket_already_used', 4002, true], ['invalid_ticket', 4501, false]] as const) {
    test(`${word}: a resume ticket is dropped, and a fresh one fetched at once`, async () => {
      const app = world.open();
      await world.pass(100);
      world.network.cut();
      const { accept } = world.hub;
      world.hub.accept = (side, url, protocols) => {
        if (protocols[1]!.startsWith('fresh')) return accept.call(world.hub, side, url, protocols);
        side.open('duelhub.v1');
        side.send(JSON.stringify({ type: 'error', message: word, retry }));
        side.close(code, word);
      };
      await world.pass(1000);
      world.hub.push();
      await world.pass(200);
      expect([app.duel.state.name, app.tickets, app.seqs]).toEqual(['online', 2, [1]]);
    });
  }

  test('ticket_already_used again and again: pauses between the attempts', async () => {
    const app = world.open();
    world.hub.accept = (side) => {
      side.open('duelhub.v1');
      side.send('{"type":"error","message":"ticket_already_used","retry":true}');
      side.close(4002, '');
    };
    await world.pass(60_000);
    expect(app.tickets).toBeGreaterThan(3);
    expect(app.tickets).toBeLessThan(15);
    expect(app.duel.state.name).not.toBe('closed');
  });

  test('invalid_ticket for a fresh ticket ends it', async () => {
    const app = world.open({ ticket: () => 'forged' });
    await world.pass(100);
    expect(app.duel.state).toEqual({ name: 'closed', reason: 'invalid_ticket' });
  });

  test('invalid_ticket for the fresh ticket after a resume ticket ends it, too', async () => {
    const app = world.open();
    await world.pass(100);
    world.hub.disconnect('invalid_ticket', 4501, false);
    world.hub.accept = (side) => {
      side.open('duelhub.v1');
      side.send('{"type":"error","message":"invalid_ticket","retry":false}');
      side.close(4501, 'invalid_ticket');
    };
    await world.pass(10_000);
    expect([app.duel.state, app.tickets]).toEqual([{ name: 'closed', reason: 'invalid_ticket' }, 2]);
  });

  test('a session that was ended because of a copy begins anew', async () => {
    const app = world.open();
    await world.pass(100);
    world.hub.disconnect('invalid_ticket', 4501, false);
    await world.pass(200);
    expect([app.duel.state.name, app.tickets]).toEqual(['online', 2]);
  });
});

describe('the end of the duel', () => {
  test('is told with the last event', async () => {
    const app = world.open();
    await world.pass(100);
    world.hub.close();
    await world.pass(100);
    expect([app.seqs, app.closed, app.duel.state]).toEqual([
      [1], [{ seq: 2, status: 'finished', delivery: 'live' }], { name: 'closed', reason: 'duel_closed' },
    ]);
  });

  test('while away is fetched by the ticket from before', async () => {
    const app = world.open();
    await world.pass(100);
    world.network.cut();
    world.hub.push();
    world.hub.close();
    await world.pass(2000);
    expect([app.seqs, app.closed, app.duel.state]).toEqual([
      [1, 2], [{ seq: 3, status: 'finished', delivery: 'replayed' }], { name: 'closed', reason: 'duel_closed' },
    ]);
  });

  test('is fetched by a used ticket if the backend gives no other', async () => {
    const app = world.open();
    await world.pass(100);
    world.network.cut();
    world.hub.push();
    world.hub.close();
    const { accept } = world.hub;
    let refused = 0;
    world.hub.accept = (side, url, protocols) => {
      if (refused++ > 0) return accept.call(world.hub, side, url, protocols);
      side.open('duelhub.v1');
      side.send('{"type":"error","message":"ticket_already_used","retry":true}');
      side.close(4002, '');
    };
    await world.pass(3000);
    expect([app.seqs, app.closed.length, app.duel.state]).toEqual([[1, 2], 1, { name: 'closed', reason: 'duel_closed' }]);
    expect(app.tickets).toBe(2);
  });

  test('is not asked for for ever', async () => {
    const app = world.open();
    await world.pass(100);
    world.network.cut();
    world.hub.close();
    world.hub.accept = (side) => {
      side.open('duelhub.v1');
      side.send('{"type":"error","message":"ticket_already_used","retry":true}');
      side.close(4002, '');
    };
    await world.pass(60_000);
    expect(app.duel.state).toMatchObject({ name: 'closed', reason: 'ticket_refused' });
    expect(app.tickets).toBe(3);
  });

  test('for whoever never had a ticket is the refusal of the ticket function', async () => {
    world.hub.close();
    const app = world.open();
    await world.pass(100);
    expect(app.duel.state).toMatchObject({ name: 'closed', reason: 'ticket_refused', error: { code: 'duel_closed' } });
  });
});

describe('the ticket function', () => {
  test('that fails is asked again', async () => {
    let asked = 0;
    const app = world.open({
      ticket: () => {
        if (asked++ < 3) throw new Error('502');
        return world.hub.issue();
      },
    });
    await world.pass(1);
    expect(app.duel.state).toMatchObject({ name: 'waiting', why: '502' });
    await world.pass(20_000);
    expect([app.duel.state.name, asked]).toEqual(['online', 4]);
  });

  test('may say when to ask again', async () => {
    const asked: number[] = [];
    world.open({
      ticket: () => {
        asked.push(Date.now());
        throw Object.assign(new Error('429'), { retryAfterMs: 7000 });
      },
    });
    await world.pass(15_000);
    expect(asked.map((at) => at - asked[0]!)).toEqual([0, 7000, 14_000]);
  });

  test('may not say nonsense about when', async () => {
    for (const retryAfterMs of [NaN, -1, Infinity, 1e15, 'soon']) {
      let asked = 0;
      const app = world.open({
        ticket: () => {
          asked += 1;
          throw Object.assign(new Error('429'), { retryAfterMs });
        },
      });
      await world.pass(1000);
      expect([app.duel.state.name, asked < 10], String(retryAfterMs)).toEqual(['waiting', true]);
      app.duel.close();
    }
  });

  test('may end it', async () => {
    const error = Object.assign(new Error('Не авторизован'), { final: true });
    const app = world.open({ ticket: () => Promise.reject(error) });
    await world.pass(100_000);
    expect(app.duel.state).toEqual({ name: 'closed', reason: 'ticket_refused', error });
    expect([vi.getTimerCount(), world.network.opened]).toEqual([0, 0]);
  });

  test('may throw anything', async () => {
    for (const thrown of [null, undefined, 'text', 7]) {
      const app = world.open({ ticket: () => Promise.reject(thrown) });
      await world.pass(1);
      expect(app.duel.state).toMatchObject({ name: 'waiting', why: String(thrown) });
    }
  });

  test('that never answers is given up, and told', async () => {
    const signals: AbortSignal[] = [];
    const app = world.open({
      ticket: ({ signal }) => {
        signals.push(signal);
        return new Promise(() => {});
      },
    });
    await world.pass(9999);
    expect([app.duel.state.name, signals[0]!.aborted]).toEqual(['connecting', false]);
    await world.pass(1);
    expect(app.duel.state).toMatchObject({ name: 'waiting', why: 'The ticket takes too long' });
    expect(signals[0]!.aborted).toBe(true);
    await world.pass(2000);
    expect(signals).toHaveLength(2);
    app.duel.close();
    expect(signals[1]!.aborted).toBe(true);
  });

  test('whose answer comes late is still of use', async () => {
    const answers: ((ticket: string) => void)[] = [];
    const app = world.open({ ticket: () => new Promise((resolve) => answers.push(resolve)) });
    await world.pass(10_001);
    answers[0]!(world.hub.issue());
    await world.pass(2000);
    expect([app.duel.state.name, answers.length]).toEqual(['online', 1]);
  });

  test('is not asked again for a ticket that the hub has not seen', async () => {
    const app = world.open();
    world.network.set('refused');
    await world.pass(60_000);
    world.network.set('up');
    await world.pass(21_000);
    expect([app.duel.state.name, app.tickets]).toEqual(['online', 1]);
  });

  test('is asked again if the answer to a single-use ticket was lost', async () => {
    const app = world.open();
    const { accept } = world.hub;
    world.hub.accept = (side, url, protocols) => {
      accept.call(world.hub, { ...side, send: () => {} }, url, protocols);
      setTimeout(() => world.network.cut(), 50);
      world.hub.accept = accept;
    };
    await world.pass(3000);
    expect([app.duel.state.name, app.tickets, world.network.opened]).toEqual(['online', 2, 2]);
  });

  test('for another duel ends it', async () => {
    const app = world.open({ duelId: 78 });
    world.hub.push();
    await world.pass(100);
    expect(app.duel.state).toEqual({ name: 'closed', reason: 'wrong_duel' });
    expect([app.events, world.network.open]).toEqual([[], 0]);
  });

  test('may not change the duel', async () => {
    const app = world.open();
    await world.pass(100);
    world.hub.duel = 78;
    world.network.cut();
    world.hub.push();
    await world.pass(2000);
    expect([app.duel.state, app.events]).toEqual([{ name: 'closed', reason: 'wrong_duel' }, []]);
  });
});
