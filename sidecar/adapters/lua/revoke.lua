-- Mark a client revoked. From then on save.lua refuses, so no new slot can appear while
-- the caller drops the ones that there are.
-- KEYS: 1 client record
-- Returns {'ok', record} or {'no-such-client'}.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'no-such-client'}
end
redis.call('HSET', KEYS[1], 'state', 'revoked')
return {'ok', redis.call('HGETALL', KEYS[1])}
