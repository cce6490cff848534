-- What there is to forget. KEYS: of each bucket its duels by when to look, and by id. ARGV: how far ahead to look. Returns how many
-- duels each bucket has, and whether it is time to look at one.

local present = now + ARGV[1]
local found = {}
for at = 1, #KEYS, 2 do
    local count = redis.call('ZCARD', KEYS[at + 1])
    local due = count > 0 and #redis.call('ZRANGEBYSCORE', KEYS[at], '-inf', present, 'LIMIT', 0, 1) or 0
    found[#found + 1], found[#found + 2] = count, due
end
return found
