-- Events after a position. KEYS: the duel. ARGV: an epoch if one is needed, the position's epoch and seq, how many.

local duel = look(KEYS[1], ARGV[1])
local seq = tonumber(ARGV[3])
if not duel or duel.epoch ~= ARGV[2] or seq > duel.seq then return { 'ended' } end
if seq < duel.seq and duel.oldest > seq + 1 then return { 'gone' } end
return { 'events', redis.call('XRANGE', duel.parts.log, number(seq + 1) .. '-0', '+', 'COUNT', ARGV[4]) }
