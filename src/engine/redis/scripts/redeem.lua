-- Redeems a ticket (rules/tickets.rs: redeem). ARGV, after those of tickets.lua: its session's key, its own, its user in its duel, the
-- revision it was issued at, its generation, when it expires, how long a resume ticket lives, and
-- any ticket at most.

local session_key, key, user = ARGV[3], ARGV[4], ARGV[5]
local issued_at, generation, expires_at = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local resume_ttl, life_max = tonumber(ARGV[9]), tonumber(ARGV[10])
local time = ledger_time(now)
forget(now)
if expires_at <= time or expires_at > time + life_max then return { 'expired', count() } end
local last = record(session_key)
local itself = key ~= session_key and record(key)
if itself and itself.revoked or is_revoked(last, user, issued_at) then return { 'revoked', count() } end
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
return { 'redeemed', count(), number(time), revision }
