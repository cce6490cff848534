-- What the scripts share that store events.
-- ARGV, after those of change.lua: how many events and bytes the log keeps, and how many that fell off it.

local events_max, bytes_max, retained_max = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])

-- Of an entry of the log, or of what fell off it: its fields.
local function fields(pairs_of)
    local found = {}
    for at = 1, #pairs_of, 2 do found[pairs_of[at]] = pairs_of[at + 1] end
    return found
end

-- rules.rs: retain.
local function keep_retained(seq, entry)
    local retained, order = duel.parts.retained, duel.parts.retained_order
    local known = redis.call('HGET', retained, entry.k)
    if known then duel.retained_bytes = duel.retained_bytes - cmsgpack.unpack(known)[2] end
    redis.call('HSET', retained, entry.k, cmsgpack.pack({ seq, tonumber(entry.z), tonumber(entry.t), entry.r }))
    redis.call('ZADD', order, seq, entry.k)
    duel.retained_bytes = duel.retained_bytes + entry.z
    while redis.call('ZCARD', order) > retained_max or duel.retained_bytes > bytes_max do
        local kind = redis.call('ZPOPMIN', order)[1]
        if not kind then duel.retained_bytes = 0 break end
        duel.retained_bytes = duel.retained_bytes - cmsgpack.unpack(redis.call('HGET', retained, kind))[2]
        redis.call('HDEL', retained, kind)
    end
    redis.call('PEXPIREAT', retained, duel.kept_until)
    redis.call('PEXPIREAT', order, duel.kept_until)
end

-- Takes the oldest off the log, as long as it holds too much (rules.rs: log_overflows).
local function trim()
    local before = duel.oldest
    while duel.seq - duel.oldest + 1 > events_max or (duel.seq > duel.oldest and duel.bytes > bytes_max) do
        local at = number(duel.oldest) .. '-0'
        local found = redis.call('XRANGE', duel.parts.log, at, at)[1]
        if found then
            local entry = fields(found[2])
            duel.bytes = duel.bytes - entry.z
            if entry.k ~= '' then keep_retained(duel.oldest, entry) end
        end
        duel.oldest = duel.oldest + 1
    end
    if duel.oldest ~= before then
        redis.call('XTRIM', duel.parts.log, 'MINID', number(duel.oldest) .. '-0')
    end
end

-- Puts an event at the end of the log, and publishes it to the nodes that subscribe to the duel.
local function store(row, size, kind)
    duel.seq = duel.seq + 1
    local seq = number(duel.seq)
    redis.call('XADD', duel.parts.log, seq .. '-0', 'r', row, 'z', size, 'k', kind, 't', number(now))
    if duel.oldest == 0 then
        duel.oldest = duel.seq
        redis.call('PEXPIREAT', duel.parts.log, duel.kept_until)
    end
    duel.bytes = duel.bytes + size
    trim()
    redis.call(publish, base, table.concat({ 'e', node, id, duel.epoch, seq, number(now), row }, ' '))
end

local function save()
    redis.call('HSET', base, 'n', duel.seq, 'o', duel.oldest, 'b', duel.bytes, 'w', duel.retained_bytes, 'u', now,
        'x', duel.expires_at, 't', duel.kept_until)
end
