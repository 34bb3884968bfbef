-- Free an entry of an index, if it still points to this client: another may have taken it meanwhile.
-- KEYS: 1 index (names or nodes)
-- ARGV: 1 entry, 2 client id (hex)
-- Returns {'ok'}.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return {'ok'}
