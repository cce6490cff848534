-- A node writes its part of a duel's presence. ARGV, after those of presence.lua: its users (empty: none), their connections,
-- what is added to the hint, whether it is published also if the users are the same, the number of the connection that entered
-- last. Returns the whole.

local users, connections, more, always = ARGV[5], ARGV[6], ARGV[7], ARGV[8] == '1'
local before = redis.call('HGET', presence, 'u:' .. node) or ''
if users == '' then
    redis.call('HDEL', presence, 'u:' .. node, 'c:' .. node)
else
    redis.call('HSET', presence, 'u:' .. node, users, 'c:' .. node, connections)
end
-- After a failover the counter may be behind the connections that are there.
if tonumber(ARGV[9]) > tonumber(redis.call('HGET', presence, 'n') or 0) then
    redis.call('HSET', presence, 'n', ARGV[9])
end
if users ~= before or always then changed(more) end
return whole()
