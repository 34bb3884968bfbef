-- Raise the generation of a client's request paths.
-- KEYS: 1 client record
-- Returns {'ok', record} or {'no-such-client'}.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'no-such-client'}
end
redis.call('HINCRBY', KEYS[1], 'generation', 1)
return {'ok', redis.call('HGETALL', KEYS[1])}
