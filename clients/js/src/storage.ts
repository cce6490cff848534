// Keeps a session over a reload. It is there only between the page's end and its next beginning: a tab that is duplicated copies
// sessionStorage, and two tabs with one resume ticket would look like a thief to the hub.

import type { SavedSession } from './session.js';

export function save(key: string, session: SavedSession | null): void {
  try {
    if (session) sessionStorage.setItem(key, JSON.stringify(session));
    else sessionStorage.removeItem(key);
  } catch {
    // No storage, or none for this page: a reload begins anew.
  }
}

/** Returns what was saved, and removes it. */
export function take(key: string): SavedSession | null {
  try {
    const saved = JSON.parse(sessionStorage.getItem(key)!);
    sessionStorage.removeItem(key);
    return typeof saved?.ticket === 'string' ? saved : null;
  } catch {
    return null;
  }
}
