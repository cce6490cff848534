-- Where logs stand, and how often presence has changed. KEYS: the duels. ARGV: for how long being asked about keeps an open duel
-- (0: it does not), and for each duel an epoch if one is needed. Of a duel that is not there, only its presence.

local idle_ms = tonumber(ARGV[1])
local heads = {}
for at, base in ipairs(KEYS) do
    local duel = look(base, ARGV[at + 1])
    local head = { redis.call('HGET', parts(base).presence, 'v') or '0' }
    if duel then
        -- A Redis that takes no writes can still be asked.
        if idle_ms > 0 then pcall(use, duel, idle_ms) end
        head = { head[1], duel.epoch, duel.seq, duel.oldest, duel.status, duel.history }
    end
    heads[at] = head
end
return heads
