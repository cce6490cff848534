// The hook, in a page.

import { StrictMode, useState, version, type ReactNode } from 'react';
import { createRoot, type Root } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { useDuel, type UsedDuel, type UseDuelOptions } from '../src/react.js';
import { DUEL, ModelHub, USER } from './model/hub.js';
import { Network } from './model/network.js';
import { settled } from './model/settled.js';

type Payloads = { duel_update: { n: number } };

let hub: ModelHub;
let network: Network;
let root: Root;
let tickets: number;
let used: UsedDuel<Payloads>;
let rendered: string[];

beforeEach(() => {
  hub = new ModelHub();
  network = new Network(hub);
  network.delay = () => 1;
  root = createRoot(document.body.appendChild(document.createElement('div')));
  tickets = 0;
  rendered = [];
});
afterEach(() => {
  root.unmount();
  document.body.replaceChildren();
});

function options(more: Partial<UseDuelOptions<Payloads>> = {}): UseDuelOptions<Payloads> {
  const ticket = (): string => {
    tickets += 1;
    return hub.issue();
  };
  return { url: 'ws://hub/ws', WebSocket: network.WebSocket, ticket, ...more };
}

function Board(props: Partial<UseDuelOptions<Payloads>>): ReactNode {
  used = useDuel<Payloads>(options(props));
  const { state, latest, online } = used;
  const text = `${state.name} ${latest.duel_update?.n ?? '-'} ${online.join()}`;
  rendered.push(text);
  return <p>{text}</p>;
}

const show = (element: ReactNode): void => root.render(element);
const shown = (text: string): Promise<void> => settled(() => expect(document.body.textContent).toBe(text));

test("the React is the one that is meant", ({ task }) => {
  expect(`react ${version}`).toContain(task.file.projectName!);
});

test('shows the state, the newest payload and who is online', async () => {
  show(<Board />);
  await shown(`online - ${USER}`);
  expect(rendered[0]).toBe('connecting - ');
  hub.push();
  const n = hub.log.at(-1)!.n;
  await shown(`online ${n} ${USER}`);
  hub.broadcast(`{"type":"presence","duel_id":${DUEL},"user_id":2,"online":true}`);
  await shown(`online ${n} ${USER},2`);
  expect([used.userId, used.duel!.duelId]).toEqual([USER, DUEL]);
  expect(Math.abs(used.serverNow() - used.duel!.serverNow())).toBeLessThan(5);
  used.ack(1);
  await settled(() => expect(hub.acked).toBe(1));
});

test('StrictMode opens one socket and fetches one ticket', async () => {
  show(<StrictMode><Board /></StrictMode>);
  await shown(`online - ${USER}`);
  expect([network.opened, tickets]).toEqual([1, 1]);
});

test('a render with other functions keeps the connection, and calls the new ones', async () => {
  const seen: string[] = [];
  let render: (name: string) => void = () => {};
  function Named(): ReactNode {
    const [name, setName] = useState('a');
    render = setName;
    const notes = { onEvent: () => seen.push(name), onConnected: () => seen.push('connected'), onDuelClosed: () => seen.push('closed') };
    return <><Board {...notes} /><b>{name}</b></>;
  }
  show(<Named />);
  await shown(`online - ${USER}a`);
  render('b');
  await shown(`online - ${USER}b`);
  hub.push();
  await settled(() => expect(seen).toEqual(['connected', 'b']));
  expect(network.opened).toBe(1);
  hub.close();
  await settled(() => expect(seen).toEqual(['connected', 'b', 'b', 'closed']));
  await settled(() => expect(used.state).toEqual({ name: 'closed', reason: 'duel_closed' }));
});

test('another duel closes the first connection and begins with nothing', async () => {
  show(<Board duelId={DUEL} />);
  await shown(`online - ${USER}`);
  hub.push();
  await shown(`online ${hub.log.at(-1)!.n} ${USER}`);
  hub.duel = DUEL + 1;
  hub.log = [];
  show(<Board duelId={DUEL + 1} />);
  await shown(`online - ${USER}`);
  expect([network.opened, network.open, tickets]).toEqual([2, 1, 2]);
});

test('what is gone is dropped when the connection was not recovered', async () => {
  show(<Board />);
  await shown(`online - ${USER}`);
  hub.push();
  await shown(`online ${hub.log.at(-1)!.n} ${USER}`);
  hub.restart({ keeps: false, says: true });
  await shown(`online - ${USER}`);
});

test('connects when it is enabled, and anew on request', async () => {
  show(<Board enabled={false} />);
  await shown('closed - ');
  expect([used.state, network.opened]).toEqual([{ name: 'closed', reason: 'disabled' }, 0]);
  show(<Board enabled />);
  await shown(`online - ${USER}`);
  hub.disconnect('connection_replaced', 4504, false);
  await shown('closed - ');
  used.reconnect();
  await shown(`online - ${USER}`);
  expect([network.opened, tickets]).toEqual([2, 2]);
});

test('unmounting leaves nothing behind', async () => {
  show(<Board />);
  await shown(`online - ${USER}`);
  show(null);
  await settled(() => expect([network.sockets.size, hub.connections]).toEqual([0, 0]));
});

test('a server renders it without connecting', () => {
  expect(renderToString(<Board />)).toBe('<p>connecting - </p>');
  expect(network.opened).toBe(0);
});
