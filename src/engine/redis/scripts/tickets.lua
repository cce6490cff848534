-- What the scripts share that concern tickets.
-- KEYS: what is remembered (u: used, r: revoked, w: a user of whom all were revoked) by when it is needed no more; for
-- such a user, until when the revoked were issued. ARGV: how many entries are remembered, for how long the keys are kept.

local remembered, users = KEYS[1], KEYS[2]
local entries_max, kept_ms = tonumber(ARGV[1]), ARGV[2]

local function forget(present)
    for _, entry in ipairs(redis.call('ZRANGEBYSCORE', remembered, '-inf', present, 'LIMIT', 0, 1024)) do
        if string.sub(entry, 1, 1) == 'w' then redis.call('HDEL', users, string.sub(entry, 2)) end
        redis.call('ZREM', remembered, entry)
    end
end

local function count()
    return redis.call('ZCARD', remembered)
end

local function remember(entry, until_ms)
    redis.call('ZADD', remembered, until_ms, entry)
    redis.call('PEXPIRE', remembered, kept_ms)
end
