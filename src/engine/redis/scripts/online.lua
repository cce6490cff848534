-- A user is on the node. ARGV, after those of roster.lua: user, role, since when, how many are listed at most: a spectator who
-- does not fit is left out. Which change it was; 0: it was none.

local user, role, since, listed_max = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])
local entry = find(user)
if not entry then
    if role == 's' and redis.call('HLEN', roster) > listed_max then return 0 end
    save(user, { role = role, since = since, acked = 0, nodes = node })
    return tell('on', user, role, since)
end
if not string.find(entry.nodes, node, 1, true) then entry.nodes = entry.nodes .. ',' .. node end
local news = entry.role ~= role
entry.role = role
save(user, entry)
if news then return tell('on', user, role, entry.since) end
return 0
