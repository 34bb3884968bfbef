-- Let an entry of an index point to a client, if it is free, the client's, or still `expected`.
-- KEYS: 1 index (names or nodes)
-- ARGV: 1 entry, 2 client id (hex), 3 expected client id (hex), or '' for none,
--       4 reason of the refusal
-- Returns {'ok'} or {reason, client id that has it}.
local holder = redis.call('HGET', KEYS[1], ARGV[1])
if holder and holder ~= ARGV[2] and holder ~= ARGV[3] then
  return {ARGV[4], holder}
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {'ok'}
