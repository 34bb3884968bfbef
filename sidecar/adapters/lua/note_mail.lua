-- Note what a client's mailbox holds, unless a later change of it was noted already.
-- KEYS: 1 uses of all mailboxes
-- ARGV: 1 client id (hex), 2 letters, 3 bytes, 4 newest_ms, 5 change
-- Returns {'ok'}.
local noted = redis.call('HGET', KEYS[1], ARGV[1])
local change = noted and string.match(noted, ':(%d+)$')
if change and tonumber(change) > tonumber(ARGV[5]) then
  return {'ok'}
end
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], table.concat({ARGV[2], ARGV[3], ARGV[4], ARGV[5]}, ':'))
end
return {'ok'}
