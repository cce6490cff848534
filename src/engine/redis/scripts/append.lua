-- Stores an event. ARGV, after those of store.lua: row, size, kind, idempotency key (empty: none), the content's fingerprint,
-- how many keys are remembered.

local row, size, kind, key, fingerprint, keys_max =
    ARGV[12], tonumber(ARGV[13]), ARGV[14], ARGV[15], ARGV[16], tonumber(ARGV[17])

-- rules.rs: check_duplicate, check_open.
if duel and key ~= '' then
    local known = redis.call('HGET', duel.parts.keys, key)
    if known then
        if string.sub(known, 1, #fingerprint) ~= fingerprint then return { 'reused' } end
        -- A write, so that who waits for replicas waits for those that have the first one, too.
        redis.call('HSET', base, 'e', duel.epoch)
        return { 'duplicate', duel.epoch, tonumber(string.sub(known, #fingerprint + 1)), duel.declared }
    end
end
if not be() then return { 'full' } end
if duel.status ~= '0' then return { 'closed' } end
store(row, size, kind)
expire(duel, now + idle_ms)
save()
if key ~= '' then
    local keys, order = duel.parts.keys, duel.parts.keys_order
    redis.call('HSET', keys, key, fingerprint .. number(duel.seq))
    redis.call('ZADD', order, duel.seq, key)
    local count = redis.call('ZCARD', order)
    if count > keys_max then redis.call('HDEL', keys, redis.call('ZPOPMIN', order)[1]) end
    if count == 1 then
        redis.call('PEXPIREAT', keys, duel.kept_until)
        redis.call('PEXPIREAT', order, duel.kept_until)
    end
end
return { 'stored', duel.epoch, duel.seq, duel.declared, now, created }
