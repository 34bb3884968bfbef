-- Free a name, if it still points to this client: another may have taken it meanwhile.
-- KEYS: 1 names
-- ARGV: 1 name, 2 client id (hex)
-- Returns {'ok'}.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return {'ok'}
