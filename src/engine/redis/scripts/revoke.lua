-- Revokes tickets (rules/tickets.rs: revoke). ARGV, after those of tickets.lua: a ticket's key (empty: a user's); the user in a duel, and until
-- when theirs were issued; for how long that is remembered.

local ticket, user, issued_until, life_ms = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
forget(now)
local entry = ticket ~= '' and 'r' .. ticket or 'w' .. user
-- What is remembered of it already needs no room. That it was used is not needed any more once it is revoked.
local known = redis.call('ZSCORE', remembered, entry) or redis.call('ZREM', remembered, 'u' .. ticket) == 1
if not known and count() >= entries_max then return { 'full', count() } end
if ticket == '' then
    local before = tonumber(redis.call('HGET', users, user) or 0)
    redis.call('HSET', users, user, math.max(before, issued_until))
    redis.call('PEXPIRE', users, kept_ms)
end
remember(entry, now + life_ms)
return { 'revoked', count() }
