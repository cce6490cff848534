-- What the scripts share that say who is online. KEYS: the duel. ARGV: its id, the node, the command that publishes, the channel
-- of all duels.
--
-- The presence of a duel is one hash. u:<node> and c:<node> are a node's part: its users and their connections. Redis does not
-- look into them. s:<node> is what n was when it was written, and a what it was when a node last asked all others to write theirs:
-- who does so lives. v counts the changes that other nodes can see, n the connections in the order in which they
-- entered. x:<user> and x:all say which connections have to go: below which number, whether they may reconnect, why.

local base, id, node, publish, watch = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local presence = parts(base).presence

-- Hints at a change, of which everybody reads the whole.
local function changed(more)
    count(presence, 'v')
    local hint = 'p ' .. node .. ' ' .. id .. more
    redis.call(publish, base, hint)
    redis.call('PUBLISH', watch, hint)
end

-- The whole. It is forgotten with the duel.
local function whole()
    redis.call('PEXPIREAT', presence, redis.call('HGET', base, 't') or now + 3600000)
    return redis.call('HGETALL', presence)
end
