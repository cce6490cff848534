export { connect, type Duel } from './duel.js';
export { fetchTicket, type FetchTicketOptions } from './ticket.js';
export type {
  ClosedReason, Connected, ConnectOptions, DuelClosed, DuelEvent, EventPayloads, Notices, Presence, State, TicketError, WebSocketLike,
} from './types.js';
