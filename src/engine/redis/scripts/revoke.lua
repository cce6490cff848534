-- Revokes tickets (rules/tickets.rs: revoke, next_revision). ARGV, after those of tickets.lua: a ticket's key (empty: a user's); the user
-- in a duel; for how long that is remembered.

local ticket, user, life_ms = ARGV[3], ARGV[4], tonumber(ARGV[5])
local time = ledger_time(now)
forget(now)
local entry = ticket ~= '' and 's' .. ticket or 'w' .. user
-- What is remembered of it already needs no room.
if not redis.call('ZSCORE', remembered, entry) and count() >= entries_max then return { 'full', count() } end
if ticket ~= '' then
    local known = record(ticket) or { generation = 0, used = '' }
    known.revoked = true
    put_record(ticket, known, time + life_ms)
else
    redis.call('HSET', users, user, raise_revision(now))
    remember(entry, time + life_ms)
end
return { 'revoked', count() }
