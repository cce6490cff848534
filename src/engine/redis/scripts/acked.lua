-- A user has everything up to a seq. ARGV, after those of roster.lua: user, seq. Which change it was; 0: it was none.

local user, seq = ARGV[5], ARGV[6]
local entry = find(user)
if not entry or tonumber(entry.acked) >= tonumber(seq) then return { 0 } end
entry.acked = seq
save(user, entry)
return { tell('ack', user, seq) }
