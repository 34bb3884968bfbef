-- Put a letter last in its queue of a client's mailbox; the heaviest senders make room for it.
-- KEYS: 1 client record, 2 mailbox, 3 index of the mailbox, and, but not in a Cluster, whose slots they
--       would be two of: 4 uses of all mailboxes
-- ARGV: 1 queue, 2 sender (hex), 3 size, 4 kept_at_ms, 5 ends_ms, 6 key (hex), 7 packed letter,
--       8 letters and 9 bytes that the queue may hold where the client's record does not say,
--       10 bytes by which the mailbox may grow, 11 client id (hex)
-- Returns {'ok', number, letters, bytes, newest_ms, change, letters dropped}, or {reason} of the
-- refusal and nothing changed.
--
-- The index maps a letter's number to 'queue:sender:size:kept_at_ms:ends_ms:key', so that
-- choosing whom to drop needs no letter itself. Numbers come from the client's record: they
-- are never used again, even after the whole mailbox has expired.

local client = redis.call('HMGET', KEYS[1], 'state', 'mailbox_letters', 'mailbox_bytes')
if not client[1] then
  return {'unknown-client'}
end
if client[1] == 'paused' then
  return {'client-paused'}
end
if client[1] ~= 'active' then
  return {'client-revoked'}
end

local queue, sender, size, key = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[6]
local kept_at_ms, ends_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local max_letters, max_bytes = tonumber(client[2] or ARGV[8]), tonumber(client[3] or ARGV[9])
local room = math.max(0, tonumber(ARGV[10]))

-- What is there, in one pass: of this queue also each letter, in arrays side by side, for it may have to go.
-- A table for each, and the senders' hex looked at, would take twice as long.
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local gone, numbers, senders, sizes, kept_at, end_at = {}, {}, {}, {}, {}, {}
local letters, bytes, newest_ms, last_end_ms = 0, 0, 0, 0
local queue_letters, queue_bytes, grown = 0, 0, 0
local match, find, max, number_of = string.match, string.find, math.max, tonumber
local index = redis.call('HGETALL', KEYS[3])
for i = 1, #index, 2 do
  local entry = index[i + 1]
  local q, s, n, kept, ends, k = match(entry, '^(%a+):([^:]*):(%d+):(%d+):(%d+):()')
  if not q then
    return redis.error_reply('ERR the mailbox holds an entry that is not ours')
  end
  n, kept, ends = number_of(n), number_of(kept), number_of(ends)
  if ends <= now_ms then
    table.insert(gone, index[i])
  elseif q == queue and #entry == k + #key - 1 and find(entry, key, k, true) == k then
    table.insert(gone, index[i])
    grown = grown - n
  else
    letters, bytes = letters + 1, bytes + n
    if q == queue then
      queue_letters, queue_bytes = queue_letters + 1, queue_bytes + n
      numbers[queue_letters], senders[queue_letters] = tonumber(index[i]), s
      sizes[queue_letters], kept_at[queue_letters], end_at[queue_letters] = n, kept, ends
    else
      newest_ms, last_end_ms = max(newest_ms, kept), max(last_end_ms, ends)
    end
  end
end

-- The new letter counts before anybody makes room for it.
letters, bytes, grown = letters + 1, bytes + size, grown + size
queue_letters, queue_bytes = queue_letters + 1, queue_bytes + size

-- The places of a sender's letters, the oldest last.
local function places_of(s)
  local found = {}
  for place, each in ipairs(senders) do
    if each == s then
      table.insert(found, place)
    end
  end
  table.sort(found, function(a, b) return numbers[a] > numbers[b] end)
  return found
end

local dropped = {}
local function crowded_by_bytes()
  return queue_bytes > max_bytes or grown > room
end
if crowded_by_bytes() or queue_letters > max_letters then
  -- Per sender: its letters and bytes, and the number of the oldest letter that is left.
  local own = {letters = 1, bytes = size, oldest = math.huge}
  local shares = {[sender] = own}
  for place = 1, #senders do
    local s, number = senders[place], numbers[place]
    local share = shares[s]
    if not share then
      share = {letters = 0, bytes = 0, oldest = number}
      shares[s] = share
    end
    share.letters, share.bytes = share.letters + 1, share.bytes + sizes[place]
    if number < share.oldest then
      share.oldest = number
    end
  end

  while true do
    -- Weighed by what there is too much of: many small letters must not push out a large one,
    -- nor a few large ones many small.
    local weight
    if crowded_by_bytes() then
      weight = 'bytes'
    elseif queue_letters > max_letters then
      weight = 'letters'
    else
      break
    end
    -- Of several that are equally heavy the new letter's own sender, else the one of the oldest letter.
    local heaviest, who = own, sender
    for s, share in pairs(shares) do
      if share[weight] > heaviest[weight] or (share[weight] == heaviest[weight] and heaviest ~= own
          and share.oldest < heaviest.oldest) then
        heaviest, who = share, s
      end
    end
    heaviest.places = heaviest.places or places_of(who)
    local place = table.remove(heaviest.places)
    if not place then
      return {'mailbox-full'}
    end
    dropped[place] = true
    table.insert(gone, numbers[place])
    heaviest.oldest = numbers[heaviest.places[#heaviest.places]] or math.huge
    heaviest.letters, heaviest.bytes = heaviest.letters - 1, heaviest.bytes - sizes[place]
    letters, bytes, grown = letters - 1, bytes - sizes[place], grown - sizes[place]
    queue_letters, queue_bytes = queue_letters - 1, queue_bytes - sizes[place]
  end
end
local dropped_letters = 0
for place, kept in ipairs(kept_at) do
  if dropped[place] then
    dropped_letters = dropped_letters + 1
  else
    newest_ms, last_end_ms = max(newest_ms, kept), max(last_end_ms, end_at[place])
  end
end

-- The first write is one that a full Redis refuses, so that it refuses before any change.
local number = redis.call('HINCRBY', KEYS[1], 'mail', 1)
if ends_ms > now_ms then
  redis.call('HSET', KEYS[2], number, ARGV[7])
  redis.call('HSET', KEYS[3], number, table.concat({queue, sender, ARGV[3], ARGV[4], ARGV[5], key}, ':'))
  newest_ms, last_end_ms = math.max(newest_ms, kept_at_ms), math.max(last_end_ms, ends_ms)
else
  letters, bytes = letters - 1, bytes - size
end
for _, old in ipairs(gone) do
  redis.call('HDEL', KEYS[2], old)
  redis.call('HDEL', KEYS[3], old)
end
if letters > 0 then
  redis.call('PEXPIREAT', KEYS[2], string.format('%d', last_end_ms))
  redis.call('PEXPIREAT', KEYS[3], string.format('%d', last_end_ms))
end
if KEYS[4] and letters > 0 then
  redis.call('HSET', KEYS[4], ARGV[11], string.format('%d:%d:%d:%d', letters, bytes, newest_ms, number))
elseif KEYS[4] then
  redis.call('HDEL', KEYS[4], ARGV[11])
end
return {'ok', number, letters, bytes, newest_ms, number, dropped_letters}
