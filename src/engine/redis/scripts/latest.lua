-- Events up to a position, the newest first; with the oldest of them what fell off the log. KEYS: the duel. ARGV: an epoch
-- if one is needed, the position's epoch and seq, how many.

local duel = look(KEYS[1], ARGV[1])
if not duel or duel.epoch ~= ARGV[2] then return { 'gone' } end
local seq, count = tonumber(ARGV[3]), tonumber(ARGV[4])
local found = redis.call('XREVRANGE', duel.parts.log, number(seq) .. '-0', '-', 'COUNT', count)
if #found == count then return { 'events', found } end
local retained = {}
for _, packed in ipairs(redis.call('HVALS', duel.parts.retained)) do
    local entry = cmsgpack.unpack(packed)
    if entry[1] <= seq then retained[#retained + 1] = { entry[1], entry[3], entry[4] } end
end
return { 'events', found, retained }
