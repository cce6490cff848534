-- A node is no more, and so nobody is on it. ARGV, after those of roster.lua: the node, why.

local gone, reason = ARGV[5], ARGV[6]
for _, user in ipairs(redis.call('HKEYS', roster)) do
    if user ~= 'v' then
        local entry = find(user)
        if entry and string.find(entry.nodes, gone, 1, true) then go(user, gone, reason) end
    end
end
return 0
