-- A user is on the node no more. ARGV, after those of roster.lua: user, why. Which change it was; 0: it was none.

return { go(ARGV[5], node, ARGV[6]) }
