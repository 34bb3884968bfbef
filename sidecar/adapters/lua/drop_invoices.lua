-- Delete a revoked client's invoices; the slots' marks stay.
-- KEYS: 1 client record, 2... slots
-- ARGV: the slots' numbers, in the order of KEYS[2]...
-- Returns {'ok'}.
if redis.call('HGET', KEYS[1], 'state') ~= 'revoked' then
  return {'ok'}
end
for i, number in ipairs(ARGV) do
  local entry = redis.call('HGET', KEYS[1], number)
  local mark = entry and string.match(entry, '^%d+:%d+:(.*)$')
  if mark then
    redis.call('HSET', KEYS[1], number, '0:0:' .. mark)
  end
  redis.call('DEL', KEYS[1 + i])
end
return {'ok'}
