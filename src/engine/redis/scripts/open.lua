-- Declares a duel. ARGV, after those of change.lua: the participants and the grace that were there before (as they stand
-- in the hash; empty: none), and those to be; whether a closed duel begins anew.

local reopen = ARGV[13] == '1'

-- rules.rs: begins_anew.
local ended = duel and duel.status ~= '0'
if ended and not reopen then return { 'closed' } end
local before = { '', '' }
if duel and not ended then
    local known = redis.call('HMGET', base, 'p', 'd')
    before = { known[1] or '', known[2] or '' }
end
if before[1] ~= ARGV[9] or before[2] ~= ARGV[10] then return { 'changed', before[1], before[2] } end
if ended then
    -- It takes the place that it has, however many duels there are.
    duel, may_be = nil, true
end
if not be() then return { 'full' } end
if ended then redis.call('HDEL', base, 'h', 'u', 'p', 'd') end
redis.call('HSET', base, 'p', ARGV[11])
if ARGV[12] == '' then redis.call('HDEL', base, 'd') else redis.call('HSET', base, 'd', ARGV[12]) end
use(duel, idle_ms)
return { ended and 'anew' or 'opened', duel.epoch, duel.seq, created }
