-- Numbers a connection that enters, before its ticket is redeemed: whoever revokes tickets and then disconnects a user reaches every
-- connection that was let in before.

local entered = count(presence, 'n')
redis.call('PEXPIREAT', presence, redis.call('HGET', base, 't') or now + 3600000)
return entered
