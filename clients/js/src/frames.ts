// The frames of the hub (README, "WebSocket protocol"), as far as they are read.

/** Any frame. Which fields are there depends on `type`. */
export interface Frame {
  type: string;
  seq?: number;
  payload?: { duel_id?: number };
  duel_id?: number;
  user_id?: number;
  /** Of `connected`: who is. Of `presence`: whether this user is. */
  online?: boolean | number[];
  status?: 'finished' | 'cancelled';
  server_time_ms?: number;
  resume_ticket?: string;
}

export interface ConnectedFrame extends Frame {
  duel_id: number;
  user_id: number;
  server_time_ms: number;
  epoch: string;
  head: number;
  recovered: boolean | null;
  online: number[];
}

export interface ErrorFrame extends Frame {
  message: string;
  retry?: boolean;
  retry_after_ms?: number;
}

/** Returns the frame in `data`, or `null` if it is none. */
export function parse(data: unknown): Frame | null {
  try {
    const frame = JSON.parse(data as string);
    return typeof frame?.type === 'string' ? frame : null;
  } catch {
    return null;
  }
}
