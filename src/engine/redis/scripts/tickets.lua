-- What the scripts share that concern tickets: the ledger (rules/tickets.rs).
-- KEYS: what is remembered (s: a session or a revoked ticket, w: a mark of a user) by when it is needed
-- no more; the records of sessions; the marks of users in duels (with a w before it, the watermark of one); the ledger itself (r its
-- revision; f and a its clock: the latest expiry of what was forgotten, and by how many ms it is ahead). ARGV: how many entries are remembered, for how long the keys are kept.

local remembered, sessions, users, ledger = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local entries_max, kept_ms = tonumber(ARGV[1]), ARGV[2]
local known = redis.call('HMGET', ledger, 'f', 'a', 'r')
local forgotten_until, ahead_ms, revision = tonumber(known[1] or 0), tonumber(known[2] or 0), known[3] or '0'

-- LedgerClock::time.
local function ledger_time(wall_ms)
    return math.max(wall_ms + ahead_ms, forgotten_until)
end

-- LedgerClock::advance and forget: of what has expired when the wall clock says so.
local function forget(wall_ms)
    if forgotten_until > wall_ms + ahead_ms then redis.call('HSET', ledger, 'a', number(forgotten_until - wall_ms)) end
    local due = redis.call('ZRANGEBYSCORE', remembered, '-inf', ledger_time(wall_ms), 'WITHSCORES', 'LIMIT', 0, 1024)
    for at = 1, #due, 2 do
        local entry = due[at]
        redis.call('HDEL', string.sub(entry, 1, 1) == 'w' and users or sessions, string.sub(entry, 2))
        redis.call('ZREM', remembered, entry)
    end
    local latest = tonumber(due[#due] or 0)
    if latest > forgotten_until then redis.call('HSET', ledger, 'f', number(latest)) end
end

local function count()
    return redis.call('ZCARD', remembered)
end

-- Never shortens the life of an entry.
local function remember(entry, until_ms)
    redis.call('ZADD', remembered, 'GT', until_ms, entry)
    for at = 1, 4 do redis.call('PEXPIRE', KEYS[at], kept_ms) end
end

-- What is remembered of a session: its generation, whether it is revoked, which ticket of the generation was used.
local function record(key)
    local text = redis.call('HGET', sessions, key)
    if not text then return nil end
    local generation, revoked, used = string.match(text, '^(%d+) (%d) (.*)$')
    return { generation = tonumber(generation), revoked = revoked == '1', used = used }
end

local function put_record(key, new, until_ms)
    local revoked = new.revoked and 1 or 0
    redis.call('HSET', sessions, key, string.format('%d %d ', new.generation, revoked) .. new.used)
    remember('s' .. key, until_ms)
end

-- next_revision.
local function raise_revision(wall_ms)
    revision = number(math.max(tonumber(revision) + 1, ledger_time(wall_ms)))
    redis.call('HSET', ledger, 'r', revision)
    return revision
end

-- Known::is_revoked, is_crowded_out: why not a ticket of this session that was issued then.
local function refusal(session, user, issued_at)
    local marks = redis.call('HMGET', users, user, 'w' .. user)
    if session and session.revoked or tonumber(marks[1] or 0) > issued_at then return 'revoked' end
    if not session and tonumber(marks[2] or 0) > issued_at then return 'used' end
end
