-- Connections have to go. ARGV, after those of roster.lua: the user whose they are (all: everybody's), and what they are told.
-- Which change it was: a node that misses it reads the roster again, and which of its connections were meant.

local wanted, how = ARGV[5], ARGV[6]
for _, user in ipairs(redis.call('HKEYS', roster)) do
    if user ~= 'v' and (wanted == 'all' or user == wanted) then
        for connection in string.gmatch(find(user).connections, '[^,]+') do
            redis.call('HSET', sent_away, connection, how)
        end
    end
end
local version = tell_followers('disconnect', wanted, how)
expire_with_duel(roster)
expire_with_duel(sent_away)
return { version }
