// The hub's words for reasons and limits, as people say them. tests/it/console.rs says which is missing.

const WORDS = {
  // Why a player's connection closed.
  client_closed: 'The client closed it',
  lost: 'The network was lost',
  connection_timeout: 'Silent for too long',
  connection_replaced: 'Took over elsewhere',
  server_restart: 'Asked to come back (restart)',
  duel_closed: 'The duel is over',
  duel_access_denied: 'Not allowed in this duel',
  invalid_ticket: 'Ticket not valid',
  ticket_expired: 'Ticket too old',
  ticket_already_used: 'Ticket used before',
  too_slow: 'Read too slowly',
  too_many_messages: 'Sent too many messages',
  message_too_large: 'Sent too large a message',
  protocol_error: 'Broke the WebSocket protocol',
  not_utf8: 'Sent text that is not UTF-8',
  internal: 'An error of the hub',

  // Why a handshake was refused.
  too_many_connections: 'Too many connections',
  too_many_requests: 'Too many attempts',
  overloaded: 'The hub is at its limit',
  origin: 'From a page of another site',
  http: 'Not readable as HTTP',
  version: 'Another version of WebSocket',
  bad_request: 'A malformed request',
  upgrade_required: 'Not a WebSocket handshake',

  // Why a backend's connection was closed.
  answers_not_taken: 'Took no answers',
  no_handshake: 'Finished no handshake',
  crowded_out: 'Gave its place to the next',
  no_call: 'Made no call',

  // How the HTTP ticket API answered.
  ok: 'Ticket issued',
  duel_unknown: 'No such duel',
  duel_id_missing: 'No duel named',
  unauthorized: 'Not signed by Telegram',
  engine_unavailable: 'The engine was away',
  not_configured: 'No bot token is set',

  // Which limit was met.
  WEBSOCKET_MAX_CONNECTIONS: 'Connections in all',
  WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS: 'Connections per address',
  WEBSOCKET_MAX_HANDSHAKES_PER_SECOND: 'Handshakes per second',
  WEBSOCKET_MAX_HANDSHAKES_PER_USER_PER_MINUTE: 'Handshakes per user',
  WEBSOCKET_MAX_INVALID_PER_ADDRESS_PER_MINUTE: 'Invalid attempts per address',
  WEBSOCKET_MAX_PENDING_HANDSHAKES: 'Handshakes under way',
  CONTROL_MAX_CONNECTIONS: 'Connections of backends',
  CONTROL_MAX_PUSHES_IN_FLIGHT: 'Pushes under way',
  CONTROL_MAX_WATCHERS: 'Watchers',
  GRPC_ANSWER_BYTES_MAX: 'Answers not taken, in bytes',
  GRPC_PAGES_MAX: 'Lists under way',
  GRPC_REQUEST_BYTES_MAX: 'Requests under way, in bytes',
  ENGINE_MAX_DUELS: 'Duels held',
  ENGINE_MAX_REMEMBERED_TICKETS: 'Tickets remembered',
  DISK_ROOM_MIN: 'Free room on the disk',
};

/** The words for what the hub calls `word`. What this page does not know is shown as plainly as can be. */
export function words(word) {
  return WORDS[word] ?? word.replaceAll('_', ' ').toLowerCase().replace(/^./, (letter) => letter.toUpperCase());
}
