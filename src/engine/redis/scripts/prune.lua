-- Forgets duels that have expired. KEYS: a bucket's duels by when to look, and by id. ARGV: how far ahead to look, how many at
-- most, for how long the index is kept.

local present = now + ARGV[1]
local prefix = string.sub(KEYS[1], 1, -4)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', present, 'LIMIT', 0, ARGV[2])) do
    local base = prefix .. id
    local expires_at = redis.call('HGET', base, 'x')
    if expires_at and tonumber(expires_at) > present then
        redis.call('ZADD', KEYS[1], expires_at, id)
    else
        redis.call('UNLINK', base)
        for _, key in pairs(parts(base)) do redis.call('UNLINK', key) end
        redis.call('ZREM', KEYS[1], id)
        redis.call('ZREM', KEYS[2], id)
    end
end
local left = redis.call('ZCARD', KEYS[2])
if left > 0 and redis.call('PTTL', KEYS[2]) < ARGV[3] / 2 then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return left
