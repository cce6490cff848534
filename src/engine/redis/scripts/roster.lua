-- What the scripts share that say who is online.
-- KEYS: the duel. ARGV: id, the node, the command that publishes, the channel of all duels.
--
-- The roster is a hash: v counts its changes; each other field is a user: role, since when, up to which seq they have acked,
-- on which nodes they are, and their connections, as node:id, in the order in which they came. Of connections that had to go
-- another hash says, by node:id, what they were to be told, until they have gone.

local base, roster, sent_away = KEYS[1], KEYS[1] .. ':p', KEYS[1] .. ':x'
local id, node, publish, watch = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local function find(user)
    local known = redis.call('HGET', roster, user)
    if not known then return nil end
    local role, since, acked, nodes, connections = string.match(known, '^(%a) (%d+) (%d+) (%S*) (%S*)$')
    return { role = role, since = since, acked = acked, nodes = nodes, connections = connections }
end

-- Redis forgets it with the duel.
local function expire_with_duel(key)
    redis.call('PEXPIREAT', key, redis.call('HGET', base, 't') or now + 3600000)
end

local function save(user, entry)
    redis.call('HSET', roster, user, table.concat(
        { entry.role, entry.since, entry.acked, entry.nodes, entry.connections }, ' '))
    expire_with_duel(roster)
end

-- Of words with commas between, those that are wanted.
local function keep(words, wanted)
    local kept = {}
    for word in string.gmatch(words, '[^,]+') do
        if wanted(word) then kept[#kept + 1] = word end
    end
    return table.concat(kept, ',')
end

local function add(words, word)
    if words == '' then return word end
    return words .. ',' .. word
end

-- Tells the nodes that follow the duel: which change it was, and the message.
local function tell_followers(...)
    local version = redis.call('HINCRBY', roster, 'v', 1)
    local message = table.concat({ 'p', node, id, number(version), ... }, ' ')
    redis.call(publish, base, message)
    return version, message
end

-- Tells those that watch all of them as well. Which change it was.
local function tell(...)
    local version, message = tell_followers(...)
    redis.call('PUBLISH', watch, message)
    return version
end

-- A user is on a node no more: which change it was, if they are on none.
local function go(user, gone, reason)
    local entry = find(user)
    if not entry then return 0 end
    entry.nodes = keep(entry.nodes, function(other) return other ~= gone end)
    entry.connections = keep(entry.connections, function(connection)
        if string.sub(connection, 1, #gone + 1) ~= gone .. ':' then return true end
        redis.call('HDEL', sent_away, connection)
        return false
    end)
    if entry.nodes ~= '' then
        save(user, entry)
        return 0
    end
    redis.call('HDEL', roster, user)
    return tell('off', user, reason)
end
