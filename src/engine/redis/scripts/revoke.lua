-- Makes tickets worthless. ARGV, after those of tickets.lua: a ticket's key (empty: a user's); the user in a duel, and until
-- when theirs were issued; for how long that is remembered.

local ticket, user, issued_until, life_ms = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
forget(now)
if count() >= entries_max then return { 'full', count() } end
if ticket ~= '' then
    remember('r' .. ticket, now + life_ms)
else
    local before = tonumber(redis.call('HGET', users, user) or 0)
    redis.call('HSET', users, user, math.max(before, issued_until))
    redis.call('PEXPIRE', users, kept_ms)
    remember('w' .. user, now + life_ms)
end
return { 'revoked', count() }
