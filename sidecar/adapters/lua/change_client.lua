-- Change fields of a client that is not revoked.
-- KEYS: 1 client record
-- ARGV: field, value, field, value, ...; an empty value removes the field
-- Returns {'ok', record}, {'no-such-client'} or {'client-revoked'}.
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  return {'no-such-client'}
end
if state == 'revoked' then
  return {'client-revoked'}
end
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
return {'ok', redis.call('HGETALL', KEYS[1])}
