-- Forgets what of tickets is needed no more. ARGV, after those of tickets.lua: the present.

forget(tonumber(ARGV[3]))
return count()
