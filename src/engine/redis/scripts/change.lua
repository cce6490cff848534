-- What the scripts share that change a duel, or bring it into being.
-- KEYS: the duel; if it is listed, its bucket's duels by when to look whether they are to be forgotten; the same by id.
-- ARGV: id, an epoch if one is needed, whether it may come into being, the retentions in ms, the
-- command that publishes, the channel of all duels, the node.

local base, due, listed = KEYS[1], KEYS[2], KEYS[3]
local id, fresh_epoch, may_be = ARGV[1], ARGV[2], ARGV[3] == '1'
local idle_ms, closed_ms, publish, watch, node = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
local duel = look(base, fresh_epoch)
local created = 0

-- Whether the duel is there now.
local function be()
    if duel then return true end
    if not may_be then return false end
    local expires_at = now + idle_ms
    local kept_until = expires_at + idle_ms + 120000
    local others = parts(base)
    redis.call('HSET', base, 'e', fresh_epoch, 'g', replication_id(), 's', 0, 'n', 0, 'o', 0, 'b', 0, 'w', 0, 'c', now,
        'x', expires_at, 't', kept_until)
    redis.call('PEXPIREAT', base, kept_until)
    -- After the first write, which a Redis without room refuses.
    redis.call('DEL', others.log, others.retained, others.retained_order, others.keys, others.keys_order)
    duel = {
        base = base, epoch = fresh_epoch, status = '0', seq = 0, oldest = 0, bytes = 0, retained_bytes = 0,
        expires_at = expires_at, kept_until = kept_until, parts = others, history = '', declared = 0,
    }
    created = 1
    if due then
        redis.call('ZADD', due, expires_at, id)
        redis.call('ZADD', listed, id, id)
        local index_until = now + 4 * math.max(idle_ms, closed_ms) + 600000
        redis.call('PEXPIREAT', due, index_until)
        redis.call('PEXPIREAT', listed, index_until)
        -- Somebody may be in it, if Redis has lost the duel: whoever began to watch since then has not read of them.
        if redis.call('HLEN', others.presence) > 1 then redis.call('PUBLISH', watch, 'p - ' .. id) end
        redis.call('PUBLISH', watch, 'o ' .. node .. ' ' .. id .. ' ' .. duel.epoch)
    end
    return true
end
