-- A user is on the node. ARGV, after those of roster.lua: user, role, since when; how many are listed at most: a spectator who
-- does not fit is left out; their new connection (empty: none), and how many they may have.
-- Which change it was (0: it was none), and those of their connections that have to go.

local user, role, since, listed_max = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])
local connection, connections_max = ARGV[9], tonumber(ARGV[10])
local entry = find(user)
local news = not entry or entry.role ~= role
if not entry then
    if role == 's' and redis.call('HLEN', roster) > listed_max then return { 0 } end
    entry = { role = role, since = since, acked = 0, nodes = '', connections = '' }
end
entry.role = role
if not string.find(entry.nodes, node, 1, true) then entry.nodes = add(entry.nodes, node) end
local answer = { 0 }
if connection ~= '' then
    local named = node .. ':' .. connection
    -- It may be said again.
    if not string.find(',' .. entry.connections .. ',', ',' .. named .. ',', 1, true) then
        entry.connections = add(entry.connections, named)
    end
    local _, commas = string.gsub(entry.connections, ',', '')
    for _ = connections_max, commas do
        local oldest, rest = string.match(entry.connections, '^([^,]+),(.*)$')
        entry.connections = rest
        answer[#answer + 1] = oldest
        redis.call(publish, base, table.concat({ 'r', node, id, oldest }, ' '))
    end
end
save(user, entry)
if news then answer[1] = tell('on', user, role, entry.since) end
return answer
