-- The node lives. KEYS: the nodes by when their leases end. ARGV: the node, its lease in ms.
-- Whether its lease had ended; and the nodes whose leases have ended.

local nodes, node = KEYS[1], ARGV[1]
local lease = redis.call('ZSCORE', nodes, node)
local ended = redis.call('ZRANGEBYSCORE', nodes, '-inf', now)
redis.call('ZADD', nodes, now + ARGV[2], node)
redis.call('PEXPIRE', nodes, 86400000)
if lease and tonumber(lease) > now then return { 0, ended } end
-- Redis may have been away, and with it everybody's leases: they all get time to come back.
for _, other in ipairs(ended) do
    if other ~= node then redis.call('ZADD', nodes, now + ARGV[2], other) end
end
return { lease and 1 or 0, {} }
