// The WebApp's origin: its files, the client's package as one module, and the ticket API, which may be down.

import { createServer } from 'node:http';
import { cpSync, existsSync, readFileSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { onStop } from './processes.mjs';

const PAGE = fileURLToPath(new URL('../client_page/', import.meta.url));
const PACKAGE = fileURLToPath(new URL('../../../clients/js/dist/index.js', import.meta.url));
/** What it says with the status 429. */
export const RETRY_AFTER_MS = 3000;

const TYPES = { html: 'text/html', js: 'text/javascript' };

/** Serves the page; asks the ticket API at `hub` (host:port). */
export async function startSite(hub) {
  if (!existsSync(PACKAGE)) throw new Error(`${PACKAGE} is not there: build clients/js`);
  const site = {
    origin: '',
    /** By the duel's id: `asked`, how often the ticket API was; `api`: `up`, a status that it answers, or `silent`, never to answer. */
    tickets: new Map(),
  };
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://site');
    const tickets = site.tickets.get(Number(searchParams.get('duel_id')));
    if (pathname.startsWith('/api/')) answerApi(tickets, hub, request, response).catch(() => response.destroy());
    else answerFile(pathname === '/duelhub.js' ? PACKAGE : `${PAGE}${pathname.slice(1) || 'index.html'}`, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onStop(() => {
    server.close();
    server.closeAllConnections();
  });
  site.origin = `http://127.0.0.1:${server.address().port}`;
  return site;
}

/** The same files, for another server. */
export function copySite(directory) {
  cpSync(PAGE, directory, { recursive: true });
  cpSync(PACKAGE, join(directory, 'duelhub.js'));
}

async function answerApi(tickets, hub, request, response) {
  tickets.asked += 1;
  if (tickets.api === 'silent') return;
  if (tickets.api !== 'up') {
    response.writeHead(tickets.api, { 'Content-Type': 'text/html', ...(tickets.api === 429 && { 'Retry-After': RETRY_AFTER_MS / 1000 }) });
    response.end('<h1>The backend is down</h1>');
    return;
  }
  const headers = { 'X-Telegram-Init-Data': request.headers['x-telegram-init-data'] ?? '' };
  const answer = await fetch(`http://${hub}${request.url}`, { headers });
  const passed = ['Content-Type', 'Cache-Control', 'Retry-After'].filter((name) => answer.headers.has(name));
  response.writeHead(answer.status, Object.fromEntries(passed.map((name) => [name, answer.headers.get(name)])));
  response.end(await answer.text());
}

function answerFile(path, response) {
  if (!existsSync(path)) return response.writeHead(404).end();
  // No Cache-Control: `no-store` would keep pages out of the back/forward cache.
  response.writeHead(200, { 'Content-Type': TYPES[path.split('.').at(-1)] });
  response.end(readFileSync(path));
}
