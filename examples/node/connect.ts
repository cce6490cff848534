// A backend, whole, over Connect: opens a duel, issues a ticket, pushes an event, repeats the push, watches the duel, closes it.
//
//     npm install && npm run build && node build/connect.js [DUEL]
//
// CONTROL is the hub's control plane, 127.0.0.1:50051 by default, and CONTROL_TOKEN its token if it wants one. The ticket that is
// printed opens ws://127.0.0.1:8090/ws?ticket=<ticket>, once.

import { setTimeout as sleep } from 'node:timers/promises';

import { Code, ConnectError, createClient, type Interceptor } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';

import { ControlService, DuelStatus } from './gen/duelhub/v1/control_pb.js';

const ATTEMPTS = 5;
/** The hub says `unavailable`. Connect says `aborted` of a connection that broke; the hub never does. */
const AWAY = [Code.Unavailable, Code.Aborted];

const authorize: Interceptor = (next) => (request) => {
  const token = process.env.CONTROL_TOKEN;
  if (token) request.header.set('authorization', `Bearer ${token}`);
  return next(request);
};

/** Repeats a call while the hub is away. Connect reads no service config; this is what examples/README.md says of it. */
const repeat: Interceptor = (next) => async (request) => {
  for (let attempt = 1; ; attempt++) {
    try {
      return await next(request);
    } catch (error) {
      // Disconnect twice would close the connection of a player who has come back in between.
      const safe = request.method !== ControlService.method.disconnect;
      if (!safe || attempt === ATTEMPTS || !AWAY.includes(ConnectError.from(error).code)) throw error;
      await sleep(200 * 2 ** attempt * Math.random(), undefined, { signal: request.signal });
    }
  }
};

const hub = createClient(
  ControlService,
  createConnectTransport({
    baseUrl: `http://${process.env.CONTROL ?? '127.0.0.1:50051'}`,
    httpVersion: '2', // One connection for all calls. '1.1' works as well.
    interceptors: [repeat, authorize],
    defaultTimeoutMs: 5000,
  }),
);

// A duel's id is the backend's own, and is never used again: here the time, which will do for trying out.
const duelId = BigInt(process.argv[2] ?? Date.now());
const { created } = await hub.openDuel({ duelId, participants: [{ userId: 1001n }, { userId: 1002n }] });
console.log(`duel ${duelId} is open, created just now: ${created}`);

// The ticket admits this user to this duel, once.
const { ticket } = await hub.issueTicket({ duelId, userId: 1001n });
console.log(`ticket of user 1001: ${ticket}`);

// With an idempotency key a push may be repeated after any failure, until there is an answer: it takes effect once.
const payload = { text: 'Which planet is the third?' };
for (let times = 0; times < 2; times++) {
  const pushed = await hub.pushEvent({ duelId, type: 'question', payload, idempotencyKey: 'question-1' });
  console.log(`event ${pushed.position?.seq} is stored, a duplicate: ${pushed.duplicate}`);
}

// A watch begins with the present state, ends that with `synced`, and then tells what changes. It has no deadline.
const watch = new AbortController();
for await (const { change } of hub.watchDuels({ duelIds: [duelId] }, { timeoutMs: 0, signal: watch.signal })) {
  console.log(`watched: ${change.case}`);
  if (change.case === 'synced') await hub.closeDuel({ duelId, status: DuelStatus.FINISHED });
  if (change.case === 'closed') break;
}
watch.abort(); // Leaving the loop does not end the call.

// A call that fails has a code and a reason to decide by, and a text for people.
try {
  await hub.pushEvent({ duelId, payload, idempotencyKey: 'question-2' });
} catch (error) {
  const failed = ConnectError.from(error);
  console.log(`refused: ${Code[failed.code]}, ${failed.rawMessage}`);
  for (const detail of failed.details) if ('debug' in detail) console.log('why:', JSON.stringify(detail.debug));
}
