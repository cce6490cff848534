-- Redeems a ticket (rules/tickets.rs: redeem). ARGV, after those of tickets.lua: the ticket's key, its user in its duel, when it was issued and when it
-- expires, how far the clock may step back.

local ticket, user, issued_at, expires_at = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
forget(now)
if expires_at <= now then return { 'expired', count() } end
local issued_until = redis.call('HGET', users, user)
if issued_until and issued_at <= tonumber(issued_until) then return { 'revoked', count() } end
if redis.call('ZSCORE', remembered, 'r' .. ticket) then return { 'revoked', count() } end
if redis.call('ZSCORE', remembered, 'u' .. ticket) then return { 'used', count() } end
if count() >= entries_max then return { 'full', count() } end
remember('u' .. ticket, expires_at + ARGV[7])
return { 'redeemed', count() }
