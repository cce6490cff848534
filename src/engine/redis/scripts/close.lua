-- Stores the last event, if any, and the end of the duel. ARGV, after those of store.lua: status, the end's row and size;
-- the last event's row (empty: none), size and kind.

local status, end_row, end_size = ARGV[12], ARGV[13], tonumber(ARGV[14])
local last_row, last_size, last_kind = ARGV[15], tonumber(ARGV[16]), ARGV[17]

if not be() then return { 'full' } end
-- rules.rs: is_closed_alike.
if duel.status == status then
    redis.call('HSET', base, 'e', duel.epoch)
    return { 'duplicate', duel.epoch, duel.seq, duel.declared }
end
if duel.status ~= '0' then return { 'closed' } end
if last_row ~= '' then store(last_row, last_size, last_kind) end
store(end_row, end_size, '')
duel.status = status
expire(duel, now + closed_ms)
save()
redis.call('HSET', base, 's', status)
if due then
    redis.call('ZADD', due, duel.expires_at, id)
    redis.call('PUBLISH', watch,
        table.concat({ 'c', node, id, duel.epoch, number(duel.seq), number(now), status }, ' '))
end
return { 'stored', duel.epoch, duel.seq, duel.declared, now, created }
