-- Declares a duel. ARGV, after those of change.lua: the participants and the grace that were there before (as they stand
-- in the hash; empty: none), and those to be.

if not be() then return { 'full' } end
if duel.status ~= '0' then return { 'closed' } end
local before = redis.call('HMGET', base, 'p', 'd')
if (before[1] or '') ~= ARGV[9] or (before[2] or '') ~= ARGV[10] then
    return { 'changed', before[1], before[2] }
end
redis.call('HSET', base, 'p', ARGV[11])
if ARGV[12] == '' then redis.call('HDEL', base, 'd') else redis.call('HSET', base, 'd', ARGV[12]) end
use(duel, idle_ms)
return { 'opened', duel.epoch, duel.seq, created }
