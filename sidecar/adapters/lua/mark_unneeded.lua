-- Note since when nothing speaks for keeping a node's webhooks, if it is in the index.
-- KEYS: 1 nodes with webhooks
-- ARGV: 1 node id (hex), 2 seconds, or '' when something does
-- Returns {'ok'}.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return {'ok'}
