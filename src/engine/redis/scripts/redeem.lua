-- Redeems a ticket (rules/tickets.rs: redeem). KEYS, after those of tickets.lua: its user's sessions in its duel, in the order of their
-- last use, behind the instant until which they are kept. ARGV, after those of tickets.lua: its session's key, its own, its user in its
-- duel, the revision it was issued at, its generation, when it expires, how long a resume ticket lives, and any ticket at most; how
-- many sessions a user may have.

local session_key, key, user = ARGV[3], ARGV[4], ARGV[5]
local issued_at, generation, expires_at = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local resume_ttl, life_max, sessions_max = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])

-- Forgets sessions before they expire, and puts their user's watermark. Returns how many.
local function crowd_out(gone, expiries)
    local latest = 0
    for at, session in ipairs(gone) do
        redis.call('HDEL', sessions, session)
        redis.call('ZREM', remembered, 's' .. session)
        latest = math.max(latest, tonumber(expiries[at]))
    end
    redis.call('HSET', users, 'w' .. user, raise_revision(now))
    remember('ww' .. user, number(latest))
    return #gone
end

-- UserSessions::note_use. Here the list has sessions that have expired as well, until it is too long. Returns how many went.
local function note_use(until_ms)
    local kept_until, known = string.match(redis.call('GET', KEYS[5]) or '0 ', '^(%d+) (.*)$')
    kept_until = tonumber(kept_until)
    -- As most who come back: the list is as it should be, and is kept for long enough.
    if string.sub(known, -16) == session_key and kept_until > until_ms - resume_ttl / 2 then return 0 end
    local listed, gone = {}, 0
    for at = 1, #known, 16 do
        local session = string.sub(known, at, at + 15)
        if session ~= session_key then listed[#listed + 1] = session end
    end
    listed[#listed + 1] = session_key
    if #listed > sessions_max then
        local entries = {}
        for at, session in ipairs(listed) do entries[at] = 's' .. session end
        local expiries = redis.call('ZMSCORE', remembered, unpack(entries))
        local live, live_expiries = {}, {}
        for at, session in ipairs(listed) do
            if expiries[at] then live[#live + 1], live_expiries[#live_expiries + 1] = session, expiries[at] end
        end
        listed = live
        if #live > sessions_max then
            local half = math.floor(sessions_max / 2)
            gone = crowd_out({ unpack(live, 1, half) }, live_expiries)
            listed = { unpack(live, half + 1) }
        end
    end
    kept_until = math.max(kept_until, until_ms)
    local text = number(kept_until) .. ' ' .. table.concat(listed)
    redis.call('SET', KEYS[5], text, 'PX', number(kept_until - ledger_time(now)))
    return gone
end

local time = ledger_time(now)
forget(now)
if expires_at <= time or expires_at > time + life_max then return { 'expired', count() } end
local last = record(session_key)
local itself = key ~= session_key and record(key)
local refused = itself and itself.revoked and 'revoked' or refusal(last, user, issued_at)
if refused then return { refused, count() } end
local until_ms = math.max(expires_at, time + resume_ttl)
if not last then
    if count() >= entries_max - math.floor(entries_max / 16) then return { 'full', count() } end
elseif generation < last.generation then
    return { 'used', count() }
elseif generation == last.generation and last.used ~= key then
    last.revoked = true
    put_record(session_key, last, until_ms)
    return { 'copied', count() }
elseif generation == last.generation and generation == 0 then
    return { 'spent', count() }
end
put_record(session_key, { generation = generation, revoked = false, used = key }, until_ms)
local gone = note_use(until_ms)
return { 'redeemed', count(), number(time), revision, gone }
