-- Say which node a client is. What is learnt fills only a gap.
-- KEYS: 1 client record
-- ARGV: 1 node id (33 bytes), or '' for none, 2 'operator' or 'learnt', 3 the leader's fence, 0 for none
-- Returns {'ok', node id before or '', record}, {'no-such-client'}, {'not-leading'} or {'bound-otherwise'}.
local state, before, last = unpack(redis.call('HMGET', KEYS[1], 'state', 'node_id', 'fence'))
if not state or state == 'revoked' then
  return {'no-such-client'}
end
if tonumber(ARGV[3]) > 0 and tonumber(ARGV[3]) < tonumber(last or 0) then
  return {'not-leading'}
end
if ARGV[2] == 'operator' or not before then
  if ARGV[1] == '' then
    redis.call('HDEL', KEYS[1], 'node_id', 'bound_by')
  else
    redis.call('HSET', KEYS[1], 'node_id', ARGV[1], 'bound_by', ARGV[2])
  end
elseif before ~= ARGV[1] then
  return {'bound-otherwise'}
end
return {'ok', before or '', redis.call('HGETALL', KEYS[1])}
