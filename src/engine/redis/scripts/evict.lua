-- A node is gone, and nobody is on it. ARGV, after those of presence.lua: the node, the users of whom it was read. Returns the
-- whole.

local gone, users = ARGV[5], ARGV[6]
-- If it says something else by now, it lives.
if redis.call('HGET', presence, 'u:' .. gone) == users then
    redis.call('HDEL', presence, 'u:' .. gone, 'c:' .. gone, 's:' .. gone)
    changed('')
end
return whole()
