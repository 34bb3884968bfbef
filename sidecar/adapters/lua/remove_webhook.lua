-- Forget a webhook.
-- KEYS: 1 webhooks of a node
-- ARGV: 1 app_name
-- Returns {'ok', how many are left} or {'no-such-webhook'}.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  return {'no-such-webhook'}
end
return {'ok', redis.call('HLEN', KEYS[1])}
