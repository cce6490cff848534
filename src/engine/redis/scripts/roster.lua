-- What the scripts share that say who is online.
-- KEYS: the duel. ARGV: id, the node, the command that publishes, the channel of all duels.
--
-- The roster is a hash: v counts its changes; each other field is a user: role, since when, up to which seq they have acked,
-- and on which nodes they are.

local base, roster = KEYS[1], KEYS[1] .. ':p'
local id, node, publish, watch = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local function find(user)
    local known = redis.call('HGET', roster, user)
    if not known then return nil end
    local role, since, acked, nodes = string.match(known, '^(%a) (%d+) (%d+) (.*)$')
    return { role = role, since = since, acked = acked, nodes = nodes }
end

local function save(user, entry)
    redis.call('HSET', roster, user, table.concat({ entry.role, entry.since, entry.acked, entry.nodes }, ' '))
    redis.call('PEXPIREAT', roster, redis.call('HGET', base, 't') or now + 3600000)
end

-- The nodes without one of them.
local function without(nodes, gone)
    local left = {}
    for other in string.gmatch(nodes, '%x+') do
        if other ~= gone then left[#left + 1] = other end
    end
    return table.concat(left, ',')
end

-- Tells the nodes that follow the duel, and those that watch all of them. Which change it was.
local function tell(...)
    local version = redis.call('HINCRBY', roster, 'v', 1)
    local message = table.concat({ 'p', node, id, number(version), ... }, ' ')
    redis.call(publish, base, message)
    redis.call('PUBLISH', watch, message)
    return version
end

-- A user is on a node no more: which change it was, if they are on none.
local function go(user, gone, reason)
    local entry = find(user)
    if not entry then return 0 end
    entry.nodes = without(entry.nodes, gone)
    if entry.nodes ~= '' then
        save(user, entry)
        return 0
    end
    redis.call('HDEL', roster, user)
    return tell('off', user, reason)
end
