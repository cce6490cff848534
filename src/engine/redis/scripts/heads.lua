-- Where logs stand. KEYS: the duels. ARGV: for how long being asked about keeps an open duel (0: it does not), and for each
-- duel an epoch if one is needed.

local idle_ms = tonumber(ARGV[1])
local heads = {}
for at, base in ipairs(KEYS) do
    local duel = look(base, ARGV[at + 1])
    if duel then
        -- A Redis that takes no writes can still be asked.
        if idle_ms > 0 then pcall(use, duel, idle_ms) end
        local version = redis.call('HGET', duel.parts.roster, 'v') or '0'
        heads[#heads + 1] = {
            at, duel.epoch, duel.seq, duel.oldest, duel.status, duel.past, version,
        }
    end
end
return heads
