-- Put an invoice into its slot, if the client, the slot's mark and the quota let it.
-- KEYS: 1 client record, 2 slot index, 3 slot, 4 mark of the slot
-- ARGV: 1 slot number, 2 issued_at_ms, 3 nonce, 4 created_at, 5 stored_at, 6 expires_at,
--       7 mark_until, 8 invoice, 9 forward_path, 10 family,
--       11 slots and 12 bytes of a client whose record does not say
-- Returns {'ok', slots used, bytes used}, or {reason} of the refusal and nothing changed.
--
-- The slot index maps a slot number to 'bytes:expires_at:mark_until', so that one declared
-- key tells a client's use: all keys carry one hash tag, as Redis Cluster asks.

local client = redis.call('HMGET', KEYS[1], 'state', 'slots', 'bytes')
if not client[1] then
  return {'unknown-client'}
end
if client[1] == 'paused' then
  return {'client-paused'}
end
if client[1] ~= 'active' then
  return {'client-revoked'}
end
if tonumber(ARGV[1]) >= tonumber(client[2] or ARGV[11]) then
  return {'slot-out-of-range'}
end

local issued_at_ms, created_at = tonumber(ARGV[2]), tonumber(ARGV[4])
local expires_at, mark_until = tonumber(ARGV[6]), tonumber(ARGV[7])
local mark = redis.call('HMGET', KEYS[4], 'issued_at_ms', 'nonce', 'created_at', 'until')
if mark[1] then
  local newest = tonumber(mark[1])
  if issued_at_ms < newest or (issued_at_ms == newest and ARGV[3] ~= mark[2]) then
    return {'stale-offer'}
  end
  if issued_at_ms == newest and created_at < tonumber(mark[3]) then
    return {'stale-invoice'}
  end
  mark_until = math.max(mark_until, tonumber(mark[4]))
end

-- By the clock that expires the keys: a slot counts for as long as its key is there.
local now = tonumber(redis.call('TIME')[1])
local size = string.len(ARGV[8]) + string.len(ARGV[9])
local slots, bytes, forgotten = 0, 0, {}
local index = redis.call('HGETALL', KEYS[2])
for i = 1, #index, 2 do
  local used, expires, marked = string.match(index[i + 1], '^(%d+):(%d+):(%d+)$')
  if index[i] ~= ARGV[1] then
    if tonumber(expires) > now then
      slots, bytes = slots + 1, bytes + tonumber(used)
    elseif tonumber(marked) <= now then
      table.insert(forgotten, index[i])
    end
  end
end
if bytes + size > tonumber(client[3] or ARGV[12]) then
  return {'quota-exceeded'}
end

-- The first write is one that a full Redis refuses, so that it refuses before any change.
-- created_at is bounded by our own clock: a wallet whose clock was ahead, and was
-- corrected, must not be locked out.
redis.call('HSET', KEYS[4], 'issued_at_ms', ARGV[2], 'nonce', ARGV[3],
  'created_at', string.format('%d', math.min(created_at, tonumber(ARGV[5]))),
  'until', string.format('%d', mark_until))
redis.call('EXPIREAT', KEYS[4], string.format('%d', mark_until))
redis.call('HSET', KEYS[2], ARGV[1], string.format('%d:%d:%d', size, expires_at, mark_until))
for _, number in ipairs(forgotten) do
  redis.call('HDEL', KEYS[2], number)
end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], 'issued_at_ms', ARGV[2], 'nonce', ARGV[3], 'invoice', ARGV[8],
  'forward_path', ARGV[9], 'family', ARGV[10], 'created_at', ARGV[4], 'stored_at', ARGV[5],
  'expires_at', ARGV[6])
redis.call('EXPIREAT', KEYS[3], ARGV[6])
if expires_at > now then
  slots, bytes = slots + 1, bytes + size
end
return {'ok', slots, bytes}
