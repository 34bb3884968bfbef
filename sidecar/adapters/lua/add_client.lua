-- Keep a new client's record, unless its id is there already.
-- KEYS: 1 client record
-- ARGV: field, value, field, value, ...
-- Returns {'ok'} or {'name-taken'}.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {'name-taken'}
end
redis.call('HSET', KEYS[1], unpack(ARGV))
return {'ok'}
