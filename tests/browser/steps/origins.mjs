// What pages of several origins may do, as Chromium enforces it.

import { equal, ok, until } from '../lib/check.mjs';
import { openSocket } from '../lib/socket.mjs';
import { DOMAIN, FRIEND, STRANGER } from '../lib/stack.mjs';
import { initDataOf } from '../lib/telegram.mjs';

const DUEL = 75;
const [ADA, ADA_AT_TELEGRAM] = [175, 975001];

export async function checkOrigins(stack) {
  const { call, evidence } = stack;
  await call('OpenDuel', { duel_id: DUEL, participants: [{ user_id: ADA, telegram_id: ADA_AT_TELEGRAM }] });
  const { ticket } = await call('IssueTicket', { duel_id: DUEL, user_id: ADA });
  evidence.ticket(ticket);

  const stranger = await pageOf(stack, STRANGER);
  const messages = [];
  stranger.on('console', (message) => messages.push(message.text()));
  equal((await opened(stack, stranger, '/ws', ticket)).code, 1006, 'a page of another origin has no WebSocket');
  await until('a page of another origin is refused with 403', () => messages.some((text) => text.includes('403')));
  equal(await fetched(stack, stranger), { forbidden: 'TypeError' }, 'a page of another origin cannot fetch a ticket');

  const friend = await pageOf(stack, FRIEND);
  const { status, json, requestId } = await fetched(stack, friend);
  if (requestId) evidence.requestIds.add(requestId);
  equal([status, json?.success], [200, true], 'a page of an allowed origin fetches a ticket across origins');
  equal(json?.request_id, requestId, 'and reads X-Request-Id across origins');
  if (json?.success) evidence.ticket(json.data.ticket);
  const { frame } = await opened(stack, friend, '/ws', ticket);
  equal([frame?.type, frame?.user_id], ['connected', ADA], 'the refusal had not spent the ticket: it opens for a friend');
}

/** `/ws/`, a ticket beside the subprotocol, and tickets that open nothing. */
export async function checkWaysToOpen(stack) {
  const page = await pageOf(stack, DOMAIN);
  const issue = async () => {
    const { ticket } = await stack.call('IssueTicket', { duel_id: DUEL, user_id: ADA });
    stack.evidence.ticket(ticket);
    return ticket;
  };
  const slash = await opened(stack, page, '/ws/', await issue());
  equal(slash.frame?.type, 'connected', '/ws/ works as well as /ws');
  const offered = await issue();
  const beside = await opened(stack, page, '/ws', null, ['duelhub.v1', offered]);
  equal([beside.frame?.type, beside.protocol], ['connected', 'duelhub.v1'], 'a ticket beside the subprotocol');

  const refused = async (what, ticket, word, code) => {
    const { frame, code: given, waitedMs } = await opened(stack, page, '/ws', ticket);
    equal([frame?.type, frame?.message, given], ['error', word, code], what);
    ok(/^[0-9a-f]{16}$/.test(frame?.request_id), `${what}: names the request`);
    // The server closes the TCP connection first (RFC 6455, section 7.1.1). Chromium waits 2 s for that, and a WebApp
    // that reconnects on `close` waits with it.
    ok(waitedMs < 1_000, `${what}: the connection ends at once`, `after ${Math.round(waitedMs)} ms`);
    stack.evidence.requestIds.add(frame?.request_id);
  };
  await refused('a ticket used twice', offered, 'ticket_already_used', 4002);
  await refused('what is no ticket', 'nonsense', 'invalid_ticket', 4501);
  await refused('no ticket', null, 'invalid_ticket', 4501);
}

async function pageOf({ browser, originOf }, domain) {
  const page = await browser.newPage();
  await page.goto(`${originOf(domain)}/`);
  return page;
}

function opened({ wsOrigin }, page, path, ticket, protocols) {
  const query = ticket === null ? '' : `?ticket=${encodeURIComponent(ticket)}`;
  return openSocket(page, wsOrigin + path + query, protocols);
}

/** Fetches a ticket in `page`, which may be of another origin; says so if the browser forbids it. */
function fetched({ originOf, evidence }, page) {
  const initData = initDataOf(ADA_AT_TELEGRAM);
  evidence.initData(initData);
  const fetchIt = async ([url, initData]) => {
    try {
      const response = await fetch(url, { headers: { 'X-Telegram-Init-Data': initData } });
      const requestId = response.headers.get('X-Request-Id');
      return { status: response.status, json: await response.json(), requestId };
    } catch (error) {
      return { forbidden: error.name };
    }
  };
  return page.evaluate(fetchIt, [`${originOf(DOMAIN)}/api/duel/ws-ticket?duel_id=${DUEL}`, initData]);
}
