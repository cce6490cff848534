// examples/react-duel: the game's hook on this client has the outside that the game's page knows.

import type { ReactNode } from 'react';
import { createRoot, type Root } from 'react-dom/client';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { useDuelRealtime } from '../../../examples/react-duel/useDuelRealtime.js';
import { DUEL, ModelHub } from './model/hub.js';
import { Network } from './model/network.js';
import { settled } from './model/settled.js';

let hub: ModelHub;
let network: Network;
let root: Root;
let seen: Record<string, any>;
const checked: unknown[] = [];

beforeEach(() => {
  hub = new ModelHub();
  network = new Network(hub);
  network.delay = () => 1;
  vi.stubGlobal('WebSocket', network.WebSocket);
  root = createRoot(document.body.appendChild(document.createElement('div')));
  checked.length = 0;
  seen = {};
});
afterEach(() => {
  root.unmount();
  vi.unstubAllGlobals();
});

function Page(props: Record<string, unknown>): ReactNode {
  seen = useDuelRealtime({
    duelId: DUEL,
    wsConfigured: true,
    wsBaseUrl: 'ws://hub/ws',
    duelStateRef: { current: 'playing' },
    checkDuelStatusRef: { current: (id: unknown) => checked.push(id) },
    getDuelWsTicket: async () => ({ success: true, data: { ticket: hub.issue() } }),
    ...props,
  });
  return null;
}

const until = (about: object): Promise<void> => settled(() => expect(seen).toMatchObject(about));
const ONLINE = { wsConnected: true, wsConnectionState: 'connected', wsRetrying: false, wsReconnectAttempt: 0 };

test('looks at the duel when it is connected, and at each update', async () => {
  root.render(<Page />);
  await until(ONLINE);
  await settled(() => expect(checked).toEqual([DUEL]));
  hub.push();
  await settled(() => expect(checked).toEqual([DUEL, DUEL]));
});

test('comes back, and then looks again', async () => {
  root.render(<Page />);
  await until(ONLINE);
  network.set('refused');
  await until({ wsConnected: false, wsConnectionState: 'connecting', wsReconnectAttempt: 2 });
  network.set('up');
  await until(ONLINE);
  await settled(() => expect(checked).toEqual([DUEL, DUEL]));
  expect(network.open).toBe(1);
});

test('ends with the duel', async () => {
  root.render(<Page />);
  await until(ONLINE);
  hub.close();
  await until({ wsConnected: false, wsConnectionState: 'offline' });
  expect(checked.length).toBeGreaterThan(1);
});

test('is off where it is not configured, and without a duel', async () => {
  root.render(<Page wsConfigured={false} />);
  await until({ wsConnected: false, wsConnectionState: 'disabled' });
  root.render(<Page duelId={null} />);
  await until({ wsConnected: false, wsConnectionState: 'offline' });
  expect(network.opened).toBe(0);
});

test('is closed by the page, and opened again by a press', async () => {
  root.render(<Page />);
  await until(ONLINE);
  seen.closeDuelSocket();
  await until({ wsConnectionState: 'offline' });
  await settled(() => expect(network.open).toBe(0));
  seen.handleRealtimeRetry();
  await until(ONLINE);
});

test("stops at the API's final answers, and tries again at the others", async () => {
  root.render(<Page getDuelWsTicket={async () => Promise.reject(new Error('Не авторизован'))} />);
  await until({ wsConnectionState: 'offline' });
  root.render(<Page key="other" getDuelWsTicket={async () => ({ success: false, error: '502' })} />);
  await until({ wsConnectionState: 'connecting', wsReconnectAttempt: 1 });
});
