-- A node lives. KEYS: the nodes by when their leases end. ARGV: the node, its lease in ms. Returns whether it had a lease, and
-- the nodes that have one.

local nodes, node = KEYS[1], ARGV[1]
redis.call('ZREMRANGEBYSCORE', nodes, '-inf', now)
local had = redis.call('ZSCORE', nodes, node)
redis.call('ZADD', nodes, now + ARGV[2], node)
redis.call('PEXPIRE', nodes, 86400000)
return { had and 1 or 0, redis.call('ZRANGE', nodes, 0, -1) }
