-- What the scripts share that concern tickets: the ledger (rules/tickets.rs).
-- KEYS: what is remembered (s: a session or a revoked ticket, w: a user all of whose tickets were revoked) by when it is needed
-- no more; the records of sessions; the marks of users; the ledger itself (r its revision, f the latest expiry of what was
-- forgotten). ARGV: how many entries are remembered, for how long the keys are kept.

local remembered, sessions, users, ledger = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local entries_max, kept_ms = tonumber(ARGV[1]), ARGV[2]

-- The ledger's time: never one at which something that is forgotten was still needed.
local function ledger_time()
    return math.max(now, tonumber(redis.call('HGET', ledger, 'f') or 0))
end

local function revision()
    return redis.call('HGET', ledger, 'r') or '0'
end

local function forget(present)
    local due = redis.call('ZRANGEBYSCORE', remembered, '-inf', present, 'WITHSCORES', 'LIMIT', 0, 1024)
    for at = 1, #due, 2 do
        local entry = due[at]
        redis.call('HDEL', string.sub(entry, 1, 1) == 'w' and users or sessions, string.sub(entry, 2))
        redis.call('ZREM', remembered, entry)
    end
    local latest = tonumber(due[#due] or 0)
    if latest > tonumber(redis.call('HGET', ledger, 'f') or 0) then redis.call('HSET', ledger, 'f', number(latest)) end
end

local function count()
    return redis.call('ZCARD', remembered)
end

-- Never shortens the life of an entry.
local function remember(entry, until_ms)
    redis.call('ZADD', remembered, 'GT', until_ms, entry)
    for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, kept_ms) end
end

-- What is remembered of a session: its generation, how often that one's ticket was used, whether it is revoked, which ticket it was.
local function record(key)
    local text = redis.call('HGET', sessions, key)
    if not text then return nil end
    local generation, uses, revoked, used = string.match(text, '^(%d+) (%d+) (%d) (.*)$')
    return { generation = tonumber(generation), uses = tonumber(uses), revoked = revoked == '1', used = used }
end

local function put_record(key, new, until_ms)
    local revoked = new.revoked and 1 or 0
    redis.call('HSET', sessions, key, string.format('%d %d %d ', new.generation, new.uses, revoked) .. new.used)
    remember('s' .. key, until_ms)
end

-- rules/tickets.rs: Known::is_revoked.
local function is_revoked(session, user, issued_at)
    local mark = redis.call('HGET', users, user)
    return session and session.revoked or mark and tonumber(mark) > issued_at
end
