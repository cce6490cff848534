-- A node writes its part of a duel's presence. ARGV, after those of presence.lua: its users (empty: none), their connections,
-- what is added to the hint, whether all nodes are asked to write theirs again, the number of the connection that entered last.
-- Returns the whole.

local users, connections, more, asks = ARGV[5], ARGV[6], ARGV[7], ARGV[8] == '1'
local known = redis.call('HMGET', presence, 'u:' .. node, 's:' .. node, 'a', 'n')
local entered = tonumber(known[4] or 0)
-- After a failover the counter may be behind the connections that are there.
if tonumber(ARGV[9]) > entered then
    entered = tonumber(ARGV[9])
    redis.call('HSET', presence, 'n', ARGV[9])
end
if users == '' then
    redis.call('HDEL', presence, 'u:' .. node, 'c:' .. node, 's:' .. node)
else
    redis.call('HSET', presence, 'u:' .. node, users, 'c:' .. node, connections, 's:' .. node, number(entered))
end
if asks then redis.call('HSET', presence, 'a', number(entered)) end
-- Whoever asked waits for this one.
local answers = users ~= '' and tonumber(known[2] or 0) < tonumber(known[3] or 0)
if users ~= (known[1] or '') or asks or answers then changed(more) end
return whole()
