-- Returns what a ticket issued now has to say. ARGV, after those of tickets.lua: the session's key, the user in the duel, the revision
-- that the session's last ticket was issued at; all empty for a new session.

local session_key, user, issued_at = ARGV[3], ARGV[4], ARGV[5]
if session_key ~= '' and refusal(record(session_key), user, tonumber(issued_at)) then return { 'refused', count() } end
return { 'stamped', count(), number(ledger_time(now)), revision }
