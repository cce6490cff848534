-- Forgets what of tickets is needed no more. ARGV, after those of tickets.lua: how far ahead to look.

forget(now + ARGV[3])
return count()
