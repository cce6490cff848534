// A hub in memory that keeps the contract's word (README, "WebSocket protocol"): sessions, generations, positions, present state.

import type { ServerSide } from './network.js';

interface LogEvent {
  seq: number;
  type: string;
  transient: boolean;
  n: number;
}

interface SessionRecord {
  generation: number;
  jti: number;
  side: ServerSide | null;
  ended: boolean;
}

interface Connection {
  side: ServerSide;
  session: number;
  generation: number;
}

export const DUEL = 77;
export const USER = 1;

/** The hub knows so many epochs of the past. */
const EPOCHS_MAX = 3;

/** The hub's clock is this far ahead of the device's. */
export const AHEAD_MS = 3_600_000;

export class ModelHub {
  log: LogEvent[] = [];
  seq = 0;
  closed = false;
  /** Whether connected frames carry another duel than asked for. */
  duel = DUEL;
  banned = false;
  /** Frames that are sent to everybody, of no known kind. */
  acked = 0;
  takeOvers = 0;
  sessionsEnded = 0;
  #epochs = ['e1'];
  #used = new Set<string>();
  #sessions = new Map<number, SessionRecord>();
  #connections = new Map<ServerSide, Connection>();
  #next = 1;

  /** A ticket of the backend's. */
  issue(): string {
    if (this.closed) throw Object.assign(new Error('Дуэль уже завершена'), { code: 'duel_closed', final: true });
    if (this.banned) throw Object.assign(new Error('Доступ запрещён'), { final: true });
    return `fresh.${this.#next++}`;
  }

  push(type = 'duel_update', transient = false): number {
    if (this.closed) return this.seq;
    this.seq += 1;
    const event = { seq: this.seq, type, transient, n: this.#next++ };
    this.log.push(event);
    for (const { side } of this.#connections.values()) this.#sendEvent(side, event);
    return this.seq;
  }

  close(): void {
    if (this.closed) return;
    this.push('duel_update');
    this.closed = true;
    this.seq += 1;
    for (const { side } of [...this.#connections.values()]) this.#end(side);
  }

  /** Stops and starts again. `keeps`: the log is still there. `says`: clients are told when to come back. */
  restart({ keeps, says }: { keeps: boolean; says: boolean }): void {
    for (const { side } of [...this.#connections.values()]) {
      if (says) this.#refuse(side, 'server_restart', 1012, true, 500);
      else this.#close(side, 1006);
    }
    const epoch = `e${this.#next++}`;
    if (keeps) {
      this.#epochs = [...this.#epochs, epoch].slice(-EPOCHS_MAX);
    } else {
      this.#epochs = [epoch];
      this.log = [];
      this.seq = 0;
      this.#sessions.clear();
      this.#used.clear();
    }
  }

  /** Forgets the oldest events. */
  trim(count: number): void {
    this.log = this.log.slice(count);
  }

  disconnect(word: string, code: number, retry: boolean): void {
    for (const { side } of [...this.#connections.values()]) this.#refuse(side, word, code, retry);
  }

  broadcast(text: string): void {
    for (const { side } of this.#connections.values()) side.send(text);
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** A handshake came in. */
  accept(side: ServerSide, url: string, protocols: string[]): void {
    const ticket = protocols[1]!;
    const resume = new URL(url, 'ws://hub').searchParams.get('resume');
    side.open('duelhub.v1');
    if (ticket.startsWith('fresh.')) this.#acceptFresh(side, ticket, resume);
    else if (ticket.startsWith('resume.')) this.#acceptResume(side, ticket, resume);
    else this.#refuse(side, 'invalid_ticket', 4501, false);
  }

  receive(side: ServerSide, text: string): void {
    const frame = JSON.parse(text) as { type: string; seq?: number };
    if (frame.type === 'ack') this.acked = Math.max(this.acked, frame.seq!);
    if (frame.type !== 'ping' || !this.#connections.has(side)) return;
    const now = Date.now() + AHEAD_MS;
    side.send(JSON.stringify({ type: 'pong', ts: Math.floor(now / 1000), server_time_ms: Math.floor(now), seq: this.seq }));
  }

  /** The client's end is gone. */
  gone(side: ServerSide): void {
    this.#forget(side);
  }

  #acceptFresh(side: ServerSide, ticket: string, resume: string | null): void {
    if (this.#used.has(ticket) && !this.closed) return this.#refuse(side, 'ticket_already_used', 4002, true);
    this.#used.add(ticket);
    const session = this.#next++;
    this.#sessions.set(session, { generation: 0, jti: 0, side: null, ended: false });
    this.#welcome(side, session, 0, resume);
  }

  #acceptResume(side: ServerSide, ticket: string, resume: string | null): void {
    const [session, generation, jti] = ticket.split('.').slice(1).map(Number) as [number, number, number];
    const record = this.#sessions.get(session) ?? { generation: 0, jti: 0, side: null, ended: false };
    this.#sessions.set(session, record);
    if (record.ended) return this.#refuse(side, 'invalid_ticket', 4501, false);
    if (generation < record.generation) return this.#refuse(side, 'ticket_already_used', 4002, true);
    if (generation === record.generation && jti !== record.jti) {
      record.ended = true;
      this.sessionsEnded += 1;
      if (record.side) this.#refuse(record.side, 'invalid_ticket', 4501, false);
      return this.#refuse(side, 'invalid_ticket', 4501, false);
    }
    if (record.side) {
      this.takeOvers += 1;
      this.#refuse(record.side, 'connection_replaced', 4504, false);
    }
    Object.assign(record, { generation, jti });
    this.#welcome(side, session, generation, resume);
  }

  #welcome(side: ServerSide, session: number, generation: number, resume: string | null): void {
    if (this.closed && Number(resume?.split(':')[1]) >= this.seq) return this.#refuse(side, 'duel_closed', 4503, false);
    const recovered = resume === null ? null : this.#holds(resume);
    const record = this.#sessions.get(session)!;
    record.side = side;
    this.#connections.set(side, { side, session, generation });
    side.send(JSON.stringify({
      type: 'connected', duel_id: this.duel, user_id: USER, server_ts: 0, server_time_ms: Math.floor(Date.now() + AHEAD_MS),
      epoch: this.#epochs.at(-1), head: this.seq, recovered, online: [USER], new_field: {},
      ...(!this.closed && { resume_ticket: `resume.${session}.${generation + 1}.${this.#next++}` }),
    }));
    const position = recovered ? Number(resume!.split(':')[1]) : null;
    for (const event of position === null ? this.#presentState() : this.log.filter(({ seq }) => seq > position)) {
      this.#sendEvent(side, event);
    }
    if (this.closed) this.#end(side);
  }

  #holds(resume: string): boolean {
    const [epoch, text] = resume.split(':') as [string, string];
    const seq = Number(text);
    const oldest = this.log[0]?.seq ?? this.seq + 1;
    return this.#epochs.includes(epoch) && seq <= this.seq && seq >= oldest - 1;
  }

  #presentState(): LogEvent[] {
    const kept = this.log.filter(({ transient }) => !transient);
    return kept.filter((event) => !kept.some(({ type, seq }) => type === event.type && seq > event.seq));
  }

  #sendEvent(side: ServerSide, { type, seq, n }: LogEvent): void {
    side.send(JSON.stringify({ type, seq, payload: { duel_id: this.duel, n } }));
  }

  #end(side: ServerSide): void {
    side.send(JSON.stringify({ type: 'duel_closed', duel_id: this.duel, seq: this.seq, status: 'finished' }));
    this.#close(side, 4503);
  }

  #refuse(side: ServerSide, message: string, code: number, retry: boolean, retry_after_ms?: number): void {
    side.send(JSON.stringify({ type: 'error', message, request_id: 'r', retry, retry_after_ms }));
    this.#close(side, code, message);
  }

  #close(side: ServerSide, code: number, reason = ''): void {
    this.#forget(side);
    side.close(code, reason);
  }

  #forget(side: ServerSide): void {
    const connection = this.#connections.get(side);
    this.#connections.delete(side);
    const record = connection && this.#sessions.get(connection.session);
    if (record?.side === side) record.side = null;
  }
}
