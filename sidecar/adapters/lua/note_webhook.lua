-- Remember how a webhook fares, if it is still there with that URL; the operator's pause is let be.
-- KEYS: 1 webhooks of a node
-- ARGV: 1 app_name, 2 url, 3 announced, 4 failures, 5 paused_until
-- Returns {'ok'}.
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old then
  local paused, registered_at, url = string.match(old, '^%d:%d+:%d+:(%d):(%d+):(.*)$')
  if not registered_at then
    return redis.error_reply('ERR the webhook is not a record of ours')
  end
  if url == ARGV[2] then
    redis.call('HSET', KEYS[1], ARGV[1], table.concat({ARGV[3], ARGV[4], ARGV[5], paused, registered_at, url}, ':'))
  end
end
return {'ok'}
