// What the end of a connection wants from the client (README, "Closing").

import type { ErrorFrame } from './frames.js';

/** What is known of a connection that ended. */
export interface End {
  /** The close code. */
  code: number;
  /** The text of the close frame. */
  message: string;
  /** The `error` frame before it. */
  error: ErrorFrame | null;
}

/** The code of a connection that ended without a close frame (RFC 6455, section 7.1.5). */
const LOST = 1006;

export const lost = (message: string): End => ({ code: LOST, message, error: null });

/** What the codes stand for, for an `error` frame that was lost. */
const WORDS: Record<number, string> = {
  4001: 'ticket_expired', 4002: 'ticket_already_used',
  4501: 'invalid_ticket', 4502: 'duel_access_denied', 4503: 'duel_closed', 4504: 'connection_replaced',
};

/** Returns the word, or an empty text if the hub said none. */
export function wordOf({ code, error }: End): string {
  return error?.message ?? WORDS[code] ?? '';
}

/** Whether the hub wants the client to stay away. */
export function isFinal({ code, error }: End): boolean {
  return error?.retry === undefined ? code >= 4500 && code <= 4999 : !error.retry;
}

/** Whether the connection ended without an answer of the hub's. */
export function isUnanswered({ code, error }: End): boolean {
  return code === LOST && !error;
}
