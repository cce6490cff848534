-- What every script begins with. A script is one step: nothing happens between its parts.
--
-- A duel is a hash, with other keys beside it in the same slot. Fields of the hash: e epoch, g the replication id that it is of,
-- h the epochs before that it went on from, the latest first, as epoch:end,
-- s status (0 open, 1 finished, 2 cancelled), n the last seq, o the oldest in the log (0: none), b bytes of the log,
-- w bytes of what fell off it, c created at, u updated at, x to be forgotten at, t when Redis itself forgets it,
-- p participants, d presence grace.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- The id of this history of the server's data. It changes whenever some of what was acknowledged may be gone: with a failover, and
-- with a restart.
local known_id
local function replication_id()
    known_id = known_id or string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or ''
    return known_id
end

local function number(value)
    return string.format('%d', value)
end

-- The keys of a duel beside its hash: the log; what fell off it and is the latest of its kind, and in which order it fell;
-- the idempotency keys, and in which order they were used; who is online.
local function parts(base)
    return {
        log = base .. ':l', retained = base .. ':f', retained_order = base .. ':g',
        keys = base .. ':k', keys_order = base .. ':o', presence = base .. ':p',
    }
end

-- Raises a counter of a duel's presence. It begins with Redis' own time in microseconds, so that it goes on growing when a flush
-- has taken it.
local function count(presence, field)
    local first = time[1] * 1000000 + time[2]
    if redis.call('HSETNX', presence, field, number(first)) == 1 then return first end
    return redis.call('HINCRBY', presence, field, 1)
end

-- How many epochs a duel's history has; a node reads as many (EpochHistory::EPOCHS_MAX). Enough for a client that is away for an
-- hour of rolling restarts.
local history_max = 16

-- The duel, if there is one. Of another replication id than before, it has a new epoch.
local function look(base, fresh_epoch)
    local row = redis.call('HMGET', base, 'e', 'g', 's', 'n', 'o', 'b', 'w', 'x', 't', 'h', 'p')
    if not row[1] then return nil end
    if row[2] ~= replication_id() then
        -- What is left is the beginning of all that was told in the epoch, and so is what was left before that.
        local history = { row[1] .. ':' .. row[4] }
        for ended in string.gmatch(row[10] or '', '%S+') do
            if #history < history_max then history[#history + 1] = ended end
        end
        row[1], row[10] = fresh_epoch, table.concat(history, ' ')
        redis.call('HSET', base, 'e', row[1], 'g', replication_id(), 'h', row[10])
    end
    return {
        base = base, epoch = row[1], status = row[3], seq = tonumber(row[4]), oldest = tonumber(row[5]),
        bytes = tonumber(row[6]), retained_bytes = tonumber(row[7]),
        expires_at = tonumber(row[8]), kept_until = tonumber(row[9]), parts = parts(base),
        history = row[10] or '', declared = row[11] and 1 or 0,
    }
end

-- The nodes forget a duel when it expires (rules.rs: expires_at); should there be none, Redis does, later. To be written with the
-- row.
local function expire(duel, expires_at)
    duel.expires_at = expires_at
    if duel.kept_until < expires_at + 60000 then
        duel.kept_until = 2 * expires_at - now + 120000
        redis.call('PEXPIREAT', duel.base, duel.kept_until)
        for _, key in pairs(duel.parts) do redis.call('PEXPIREAT', key, duel.kept_until) end
    end
end

-- An open duel is used: it is kept for as long again, to an eighth of that.
local function use(duel, idle_ms)
    if duel.status == '0' and now + idle_ms - duel.expires_at >= idle_ms / 8 then
        -- A Redis without room does not refuse this, nor what a script writes after it.
        redis.call('PEXPIREAT', duel.base, duel.kept_until)
        expire(duel, now + idle_ms)
        redis.call('HSET', duel.base, 'x', duel.expires_at, 't', duel.kept_until)
    end
end
