-- Tells that a session has ended. KEYS: the duel. ARGV: its id, the node, the command that publishes, the channel of all duels; the
-- user, the session.

local id, node, publish, watch, user, session = unpack(ARGV)
local ended = table.concat({ '', node, id, 'session_ended', user, session }, ' ')
redis.call(publish, KEYS[1], 's' .. ended)
redis.call('PUBLISH', watch, 'w' .. ended)
