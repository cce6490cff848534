-- The duel as it stands, and who is online. ARGV, after those of change.lua: whether it is entered, which brings it into
-- being and is a sign of life; up to which change the node knows who is online.

local enters, known_version = ARGV[9] == '1', ARGV[10]
if enters and not be() then return { 'full' } end
if not duel then return { 'none' } end
if enters then use(duel, idle_ms) end
local row = redis.call('HMGET', base, 'c', 'u', 'p', 'd')
local version = redis.call('HGET', duel.parts.roster, 'v') or '0'
local roster = {}
if version ~= known_version then roster = redis.call('HGETALL', duel.parts.roster) end
return {
    'found', duel.epoch, duel.seq, duel.oldest, duel.status, duel.past,
    row[1], row[2], row[3], row[4], version, roster, created,
}
