-- The duel as it stands. ARGV, after those of change.lua: whether it is entered, which brings it into being and is a sign of life.

local enters = ARGV[9] == '1'
if enters and not be() then return { 'full' } end
if not duel then return { 'none' } end
if enters then use(duel, idle_ms) end
local row = redis.call('HMGET', base, 'c', 'u', 'p', 'd')
return {
    'found', duel.epoch, duel.seq, duel.oldest, duel.status, duel.history,
    row[1], row[2], row[3], row[4], created,
}
