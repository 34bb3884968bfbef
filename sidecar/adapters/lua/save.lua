-- Put an invoice into its slot, if the client, the slot's mark and the quota let it.
-- KEYS: 1 client record, 2 slot
-- ARGV: 1 slot number, 2 issued_at_ms, 3 nonce, 4 created_at, 5 stored_at, 6 expires_at,
--       7 mark_until, 8 packed invoice (the slot begins with Redis's clock in milliseconds), 9 its size when unpacked,
--       10 slots and 11 bytes of a client whose record does not say, 12 the leader's fence, 0 for none
-- An invoice that is good by the caller's clock and past by Redis's is kept as long, counted from now, and
-- so is its mark: of two clocks that are apart, a short time to live must not end before it begins.
-- Returns {'ok', slots used, bytes used}, or {reason} of the refusal and nothing changed.
--
-- The record maps a slot's number to 'bytes:expires_at:mark_until:issued_at_ms:created_at:nonce', so that
-- one key tells a client's use, and what each slot remembers: its other fields are words.

local record = redis.call('HGETALL', KEYS[1])
local client, entries = {}, {}
for i = 1, #record, 2 do
  if string.find(record[i], '^%d+$') then
    entries[record[i]] = record[i + 1]
  else
    client[record[i]] = record[i + 1]
  end
end
if not client.state then
  return {'unknown-client'}
end
local fence, last = tonumber(ARGV[12]), tonumber(client.fence or 0)
if fence > 0 and fence < last then
  return {'not-leading'}
end
if client.state == 'paused' then
  return {'client-paused'}
end
if client.state ~= 'active' then
  return {'client-revoked'}
end
if tonumber(ARGV[1]) >= tonumber(client.slots or ARGV[10]) then
  return {'slot-out-of-range'}
end

-- By the clock that expires the invoices: a slot counts for as long as its key is there.
local time = redis.call('TIME')
local now = tonumber(time[1])
local issued_at_ms, created_at = tonumber(ARGV[2]), tonumber(ARGV[4])
local expires_at, mark_until, size = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[9])
if expires_at <= now and expires_at > tonumber(ARGV[5]) then
  local ahead = now - tonumber(ARGV[5])
  expires_at, mark_until = expires_at + ahead, mark_until + ahead
end
local slots, bytes, forgotten = 0, 0, {}
for number, entry in pairs(entries) do
  local used, expires, marked, issued, created, nonce =
    string.match(entry, '^(%d+):(%d+):(%d+):(%d+):(%d+):(.*)$')
  if not used then
    return redis.error_reply('ERR the client has a slot that is not ours')
  end
  marked = tonumber(marked)
  if number ~= ARGV[1] then
    if tonumber(expires) > now then
      slots, bytes = slots + 1, bytes + tonumber(used)
    elseif marked <= now then
      table.insert(forgotten, number)
    end
  elseif marked > now then
    local newest = tonumber(issued)
    if issued_at_ms < newest or (issued_at_ms == newest and ARGV[3] ~= nonce) then
      return {'stale-offer'}
    end
    if issued_at_ms == newest and created_at < tonumber(created) then
      return {'stale-invoice'}
    end
    mark_until = math.max(mark_until, marked)
  end
end
if bytes + size > tonumber(client.bytes or ARGV[11]) then
  return {'quota-exceeded'}
end

-- The first write is one that a full Redis refuses, so that it refuses before any change.
-- created_at is bounded by our own clock: a wallet whose clock was ahead, and was
-- corrected, must not be locked out.
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d:%d:%d:%d:%d:', size, expires_at, mark_until,
  issued_at_ms, math.min(created_at, tonumber(ARGV[5]))) .. ARGV[3])
if fence > last then
  redis.call('HSET', KEYS[1], 'fence', ARGV[12])
end
for _, number in ipairs(forgotten) do
  redis.call('HDEL', KEYS[1], number)
end
if expires_at > now then
  local now_ms = string.format('%d', now * 1000 + math.floor(time[2] / 1000))
  redis.call('SET', KEYS[2], now_ms .. ':' .. ARGV[8], 'EXAT', string.format('%d', expires_at))
  slots, bytes = slots + 1, bytes + size
else
  redis.call('DEL', KEYS[2])
end
return {'ok', slots, bytes}
