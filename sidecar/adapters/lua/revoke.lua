-- Mark a client revoked. From then on save.lua refuses, so no new slot can appear while
-- the caller drops the ones that there are.
-- KEYS: 1 client record
-- Returns {'ok', record} or {'no-such-client'}.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'no-such-client'}
end
if redis.call('HGET', KEYS[1], 'state') ~= 'revoked' then
  local time = redis.call('TIME')
  local now_ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('HSET', KEYS[1], 'state', 'revoked', 'revoked_ms', now_ms)
end
return {'ok', redis.call('HGETALL', KEYS[1])}
