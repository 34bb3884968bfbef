-- Delete a revoked client's invoices; the slots' marks stay.
-- KEYS: 1 client record, 2 slot index, 3... slots
-- ARGV: the slots' numbers, in the order of KEYS[3]...
-- Returns {'ok'}.
if redis.call('HGET', KEYS[1], 'state') ~= 'revoked' then
  return {'ok'}
end
for i, number in ipairs(ARGV) do
  local entry = redis.call('HGET', KEYS[2], number)
  local mark_until = entry and string.match(entry, '^%d+:%d+:(%d+)$')
  if mark_until then
    redis.call('HSET', KEYS[2], number, '0:0:' .. mark_until)
  end
  redis.call('DEL', KEYS[2 + i])
end
return {'ok'}
