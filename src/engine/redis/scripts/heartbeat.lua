-- The node lives. KEYS: the nodes by when their leases end. ARGV: the node, its lease in ms.
-- Whether its lease had ended, or there was none; and the nodes whose leases have ended.

local nodes, node = KEYS[1], ARGV[1]
local lease = redis.call('ZSCORE', nodes, node)
local lapsed = 1
if lease and tonumber(lease) > now then lapsed = 0 end
redis.call('ZADD', nodes, now + ARGV[2], node)
redis.call('PEXPIRE', nodes, 86400000)
return { lapsed, redis.call('ZRANGEBYSCORE', nodes, '-inf', now) }
