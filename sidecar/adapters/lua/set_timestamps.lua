-- Choose how a client's notifications are dated.
-- KEYS: 1 client record
-- ARGV: 1 form, or '' for the server's default
-- Returns {'ok', record} or {'no-such-client'}.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'no-such-client'}
end
if ARGV[1] == '' then
  redis.call('HDEL', KEYS[1], 'timestamps')
else
  redis.call('HSET', KEYS[1], 'timestamps', ARGV[1])
end
return {'ok', redis.call('HGETALL', KEYS[1])}
