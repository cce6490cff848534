// fetchTicket, against a server of HTTP.

import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { fetchTicket } from '../src/index.js';

let server: Server;
let apiUrl: string;
let asked: { url: string; initData: unknown }[];
let answer: { status: number; body: string; headers?: Record<string, string> };

beforeEach(async () => {
  asked = [];
  server = createServer((request, response) => {
    asked.push({ url: request.url!, initData: request.headers['x-telegram-init-data'] });
    response.writeHead(answer.status, answer.headers).end(answer.body);
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  apiUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/api`;
});
afterEach(() => void server.close());

const fetchIt = (): Promise<string> => fetchTicket({ duelId: 77, initData: 'user=1&hash=x', apiUrl });

test('returns the ticket', async () => {
  answer = { status: 200, body: '{"success":true,"request_id":"r","data":{"ticket":"t.i.c","expires_at":1}}' };
  expect(await fetchIt()).toBe('t.i.c');
  expect(asked).toEqual([{ url: '/api/duel/ws-ticket?duel_id=77', initData: 'user=1&hash=x' }]);
});

test('says whether another attempt helps', async () => {
  for (const [status, code, final] of [
    [400, 'duel_id_missing', true], [401, 'unauthorized', true], [403, 'access_denied', true], [404, 'duel_not_found', false],
    [409, 'duel_closed', true], [429, 'too_many_requests', false], [500, 'internal', false], [503, 'unavailable', false],
  ] as const) {
    answer = { status, body: JSON.stringify({ success: false, error: 'текст', code, request_id: 'r' }), headers: { 'Retry-After': '2' } };
    const error = await fetchIt().catch((error) => error);
    expect(error).toMatchObject({ message: 'текст', status, code, final, requestId: 'r', retryAfterMs: 2000 });
  }
});

test('of a proxy that answers for the hub is tried again', async () => {
  answer = { status: 502, body: '<html>Bad Gateway</html>' };
  const error = await fetchIt().catch((error) => error);
  expect(error).toMatchObject({ message: 'HTTP 502', final: false });
  expect(error.retryAfterMs).toBeUndefined();
});

test('can be aborted', async () => {
  await expect(fetchTicket({ duelId: 1, initData: '', apiUrl, signal: AbortSignal.abort() })).rejects.toMatchObject({ name: 'AbortError' });
});
