-- Let a name point to a client, if it is free or still points to `expected`.
-- KEYS: 1 names
-- ARGV: 1 name, 2 client id (hex), 3 expected client id (hex), or '' for a free name only
-- Returns {'ok'} or {'name-taken', client id that has it}.
local holder = redis.call('HGET', KEYS[1], ARGV[1])
if holder and holder ~= ARGV[3] then
  return {'name-taken', holder}
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {'ok'}
