-- Insert a webhook, or replace the one of its name.
-- KEYS: 1 webhooks of a node
-- ARGV: 1 app_name, 2 url, 3 registered_at, 4 how many there may be
-- Returns {'ok', how many there are, 1 if it was there with this URL, else 0} or {'too-many-webhooks'}.
--
-- A webhook is 'announced:failures:paused_until:paused:registered_at:url', with 0 and 1 for flags.
local fresh = '0:0:0:0:' .. ARGV[3] .. ':' .. ARGV[2]
local old = redis.call('HGET', KEYS[1], ARGV[1])
if not old then
  if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
    return {'too-many-webhooks'}
  end
  redis.call('HSET', KEYS[1], ARGV[1], fresh)
  return {'ok', redis.call('HLEN', KEYS[1]), 0}
end
local announced, paused, registered_at, url = string.match(old, '^(%d):%d+:%d+:(%d):(%d+):(.*)$')
if not registered_at then
  return redis.error_reply('ERR the webhook is not a record of ours')
end
local same = url == ARGV[2]
if same then
  fresh = table.concat({announced, 0, 0, paused, registered_at, url}, ':')
end
redis.call('HSET', KEYS[1], ARGV[1], fresh)
return {'ok', redis.call('HLEN', KEYS[1]), same and 1 or 0}
