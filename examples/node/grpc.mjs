// A backend, whole, over gRPC: opens a duel, issues a ticket, pushes an event, repeats the push, watches the duel, closes it.
//
//     npm install && node grpc.mjs [DUEL]
//
// CONTROL is the hub's control plane, 127.0.0.1:50051 by default, and CONTROL_TOKEN its token if it wants one. The ticket that is
// printed opens ws://127.0.0.1:8090/ws?ticket=<ticket>, once.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

// 64-bit numbers are texts, as in JSON. Fields are named as in JSON, too: a field of another name is left out without a word.
const options = { includeDirs: [here('../../proto')], longs: String, enums: String, oneofs: true, defaults: true };
const definition = loadSync('duelhub/v1/control.proto', options);
const { duelhub } = grpc.loadPackageDefinition(definition);

const client = new duelhub.v1.ControlService(process.env.CONTROL ?? '127.0.0.1:50051', grpc.credentials.createInsecure(), {
  // Which calls are repeated, and when: examples/README.md says why these.
  'grpc.service_config': readFileSync(here('../service-config.json'), 'utf8'),
  // A hub that restarts is back within a second. By default the wait between two connections grows to two minutes.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
  // A watch may be silent for long, and would not notice that the hub's machine is gone.
  'grpc.keepalive_time_ms': 20_000,
});

/** What goes with each call. grpc-js reads `waitForReady` here, and not in the service config. */
const metadata = new grpc.Metadata({ waitForReady: true });
if (process.env.CONTROL_TOKEN) metadata.set('authorization', `Bearer ${process.env.CONTROL_TOKEN}`);

/** One call, as a promise. */
const call = (method, request) =>
  new Promise((resolve, reject) => {
    client[method](request, metadata, (error, answer) => (error ? reject(error) : resolve(answer)));
  });

// A duel's id is the backend's own, and is never used again: here the time, which will do for trying out.
const duelId = Number(process.argv[2] ?? Date.now());
const { created } = await call('OpenDuel', { duelId, participants: [{ userId: 1001 }, { userId: 1002 }] });
console.log(`duel ${duelId} is open, created just now: ${created}`);

// The ticket admits this user to this duel, once.
const { ticket } = await call('IssueTicket', { duelId, userId: 1001 });
console.log(`ticket of user 1001: ${ticket}`);

// With an idempotency key a push may be repeated after any failure, until there is an answer: it takes effect once.
const payloadJson = JSON.stringify({ text: 'Which planet is the third?' });
for (let times = 0; times < 2; times++) {
  const pushed = await call('PushEvent', { duelId, type: 'question', payloadJson, idempotencyKey: 'question-1' });
  console.log(`event ${pushed.position.seq} is stored, a duplicate: ${pushed.duplicate}`);
}

// A watch begins with the present state, ends that with `synced`, and then tells what changes.
const watch = client.WatchDuels({ duelIds: [duelId] }, metadata);
for await (const { change } of watch) {
  console.log(`watched: ${change}`);
  if (change === 'synced') await call('CloseDuel', { duelId, status: 'DUEL_STATUS_FINISHED' });
  if (change === 'closed') break;
}
watch.cancel(); // Leaving the loop does not end the call.

// A call that fails has a code to decide by, and a text for people.
try {
  await call('PushEvent', { duelId, payloadJson, idempotencyKey: 'question-2' });
} catch (error) {
  console.log(`refused: ${grpc.status[error.code]}, ${error.details}`);
}
client.close();
