-- Connections have to go. ARGV, after those of presence.lua: whose (a user's id, or all), how many such orders are kept, what
-- they are told. Returns the whole.

local whose, orders_max, how = ARGV[5], tonumber(ARGV[6]), ARGV[7]
local orders = {}
for _, field in ipairs(redis.call('HKEYS', presence)) do
    if string.sub(field, 1, 2) == 'x:' then orders[#orders + 1] = field end
end
if whose == 'all' and #orders > 0 then
    -- The others are part of it.
    redis.call('HDEL', presence, unpack(orders))
elseif #orders >= orders_max and redis.call('HEXISTS', presence, 'x:' .. whose) == 0 then
    local function below(field) return tonumber(string.match(redis.call('HGET', presence, field), '^%d+')) end
    table.sort(orders, function(one, other) return below(one) < below(other) end)
    redis.call('HDEL', presence, orders[1])
end
redis.call('HSET', presence, 'x:' .. whose, number(count(presence, 'n')) .. ' ' .. how)
changed('')
return whole()
