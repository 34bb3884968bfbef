-- Lead no more: whoever hears LND may lead from now on.
-- KEYS: 1 lease
-- ARGV: 1 holder, 2 '1' if it has dealt with nothing but what it tells, 3... as behind lease.lua's time
-- Returns {'ok', 1 if it held the lease, else 0}.
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then
  return {'ok', 0}
end
local fields = {'holder', '', 'drained', ARGV[2]}
for i = 3, #ARGV, 2 do
  table.insert(fields, 'done:' .. ARGV[i])
  table.insert(fields, ARGV[i + 1])
end
redis.call('HSET', KEYS[1], unpack(fields))
return {'ok', 1}
