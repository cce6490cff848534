-- A user has a connection less. ARGV, after those of roster.lua: user, connection.

local user, gone = ARGV[5], node .. ':' .. ARGV[6]
local entry = find(user)
if entry then
    entry.connections = keep(entry.connections, function(connection) return connection ~= gone end)
    save(user, entry)
end
redis.call('HDEL', sent_away, gone)
return 0
