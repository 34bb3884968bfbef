-- Stop using a webhook, or use it again, which forgets its failures.
-- KEYS: 1 webhooks of a node
-- ARGV: 1 app_name, 2 '1' to stop, '0' to use it again
-- Returns {'ok'} or {'no-such-webhook'}.
local old = redis.call('HGET', KEYS[1], ARGV[1])
if not old then
  return {'no-such-webhook'}
end
local announced, failures, paused_until, rest = string.match(old, '^(%d):(%d+):(%d+):%d:(%d+:.*)$')
if not rest then
  return redis.error_reply('ERR the webhook is not a record of ours')
end
if ARGV[2] == '0' then
  failures, paused_until = '0', '0'
end
redis.call('HSET', KEYS[1], ARGV[1], table.concat({announced, failures, paused_until, ARGV[2], rest}, ':'))
return {'ok'}
