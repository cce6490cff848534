// What the end of a connection wants from the client (README, "Closing").

import type { ErrorFrame } from './frames.js';

/** What is known of a connection that ended. */
export interface End {
  /** The close code. 1006 if there was no close frame. */
  code: number;
  /** The text of the close frame. */
  message: string;
  /** The `error` frame before it. */
  error: ErrorFrame | null;
}

/** A connection that ended without a word. */
export const lost = (message: string): End => ({ code: 1006, message, error: null });

/** Words that are about the ticket: another one helps. */
const TICKET_WORDS = ['ticket_expired', 'ticket_already_used', 'invalid_ticket'];
const TICKET_CODES: Record<number, string> = { 4001: 'ticket_expired', 4002: 'ticket_already_used', 4501: 'invalid_ticket' };

/** The words that the codes stand for, for an `error` frame that was lost. */
const STOP_CODES: Record<number, string> = { 4502: 'duel_access_denied', 4503: 'duel_closed', 4504: 'connection_replaced' };

/** Returns the word, or an empty text if the hub said none. */
export function wordOf({ code, error }: End): string {
  return error?.message ?? TICKET_CODES[code] ?? STOP_CODES[code] ?? '';
}

export function isAboutTicket(end: End): boolean {
  return TICKET_WORDS.includes(wordOf(end));
}

/** Whether the hub wants the client to stay away. */
export function isFinal({ code, error }: End): boolean {
  return error?.retry === undefined ? code >= 4500 && code <= 4999 : !error.retry;
}
