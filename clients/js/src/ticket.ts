// The hub's own ticket API, for a backend that leaves the tickets to it.

import type { TicketError } from './types.js';

export interface FetchTicketOptions {
  /** The duel. */
  duelId: number;
  /** What Telegram vouches with: `Telegram.WebApp.initData`. */
  initData: string;
  /** Where the API is, without a slash at its end: `/api` unless given. */
  apiUrl?: string;
  signal?: AbortSignal;
}

/** Statuses that do not change by asking again: the user is nobody, no participant, or too late. */
const FINAL = [400, 401, 403, 409];

/**
 * Fetches a ticket from the hub's HTTP ticket API. The error that is thrown has the status, the `code` of the answer, the
 * `requestId`, and what {@link TicketError} has.
 */
export async function fetchTicket({ duelId, initData, apiUrl = '/api', signal }: FetchTicketOptions): Promise<string> {
  const response = await fetch(`${apiUrl}/duel/ws-ticket?duel_id=${duelId}`, {
    headers: { 'X-Telegram-Init-Data': initData },
    // A route without Cache-Control may be answered by the browser on the way back, with a ticket that is used.
    cache: 'no-store',
    signal: signal ?? null,
  });
  const answer = await response.json().catch(() => ({}));
  if (typeof answer.data?.ticket === 'string') return answer.data.ticket;
  const { status, headers } = response;
  const retryAfter = headers.get('Retry-After');
  const facts: TicketError & { status: number; requestId?: string } = {
    status, code: answer.code, requestId: answer.request_id,
    final: FINAL.includes(status),
    ...(retryAfter && { retryAfterMs: Number(retryAfter) * 1000 }),
  };
  throw Object.assign(new Error(answer.error ?? `HTTP ${status}`), facts);
}
