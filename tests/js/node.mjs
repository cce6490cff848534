// The built package in Node.js, against a real hub that is killed meanwhile. Argument: the hub's binary.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { connect } from '../../clients/js/dist/index.js';
import { until } from '../browser/lib/check.mjs';
import { startHub } from '../browser/lib/hub.mjs';
import { freePorts } from '../browser/lib/ports.mjs';
import { stopAll } from '../browser/lib/processes.mjs';

const { WebSocket } = createRequire(new URL('../../clients/js/package.json', import.meta.url))('ws');
const DUEL = 77;
const [binary] = process.argv.slice(2);
const directory = mkdtempSync(join(tmpdir(), 'duelhub-js-'));
const [edge, control, admin] = await freePorts(3);
const variables = {
  ENGINE: 'embedded', DATA_DIR: join(directory, 'data'), WEBSOCKET_TICKET_SECRET: 'x'.repeat(32),
  WEBSOCKET_PORT: String(edge), CONTROL_PORT: String(control), ADMIN_PORT: String(admin),
};

async function call(method, request) {
  const response = await fetch(`http://127.0.0.1:${control}/duelhub.v1.ControlService/${method}`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(request),
  });
  assert.equal(response.status, 200, method);
  return response.json();
}

try {
  let hub = await startHub(binary, directory, variables);
  let tickets = 0;
  const seen = [];
  const duel = connect({
    url: `ws://127.0.0.1:${edge}/ws`, WebSocket, maxDelayMs: 500,
    ticket: async () => {
      tickets += 1;
      return (await call('IssueTicket', { duelId: DUEL, userId: 1 })).ticket;
    },
  });
  duel.on('event', ({ payload, delivery }) => seen.push([payload.n, delivery]));
  await until('it connects', () => duel.state.name === 'online');
  for (const n of [1, 2]) await call('PushEvent', { duelId: DUEL, payload: { n } });
  await until('both events come', () => seen.length === 2);
  duel.ack(2);
  await until('the ack arrives', async () => (await call('GetDuel', { duelId: DUEL })).duel.online?.some(({ ackedSeq }) => ackedSeq === '2'));
  assert.ok(Math.abs(duel.serverNow() - Date.now()) <= duel.clock.uncertaintyMs + 2, `${JSON.stringify(duel.clock)}`);

  hub.child.kill('SIGKILL');
  await until('the kill is noticed', () => duel.state.name !== 'online');
  hub = await startHub(binary, directory, variables);
  await call('PushEvent', { duelId: DUEL, payload: { n: 3 } });
  await until('what was missed comes', () => seen.length === 3);
  assert.deepEqual(seen.map(([n]) => n), [1, 2, 3]);
  assert.equal(tickets, 1, 'it came back with its resume ticket');

  await call('CloseDuel', { duelId: DUEL, status: 'DUEL_STATUS_FINISHED' });
  await until('it ends with the duel', () => duel.state.name === 'closed');
  assert.equal(duel.state.reason, 'duel_closed');
  console.log(`Node.js ${process.version}: ${seen.length} events over a kill of the hub, one ticket`);
} finally {
  await stopAll();
  rmSync(directory, { recursive: true, force: true });
}
// Nothing that the client left behind keeps this process: it ends here, or the test command waits for ever.
