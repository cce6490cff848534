-- A node writes its part of a duel's presence. ARGV, after those of presence.lua: its users (empty: none), their connections,
-- what is added to the hint, whether it is published also if the users are the same. Returns the whole.

local users, connections, more, always = ARGV[5], ARGV[6], ARGV[7], ARGV[8] == '1'
local before = redis.call('HGET', presence, 'u:' .. node) or ''
if users == '' then
    redis.call('HDEL', presence, 'u:' .. node, 'c:' .. node)
else
    redis.call('HSET', presence, 'u:' .. node, users, 'c:' .. node, connections)
end
if users ~= before or always then changed(more) end
return whole()
