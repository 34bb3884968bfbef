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

-- What is there: the rest of this queue, and of the whole mailbox, in one pass.
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local gone, mine = {}, {}
local letters, bytes, newest_ms, last_end_ms = 0, 0, 0, 0
local queue_letters, queue_bytes, grown = 0, 0, 0
local index = redis.call('HGETALL', KEYS[3])
for i = 1, #index, 2 do
  local q, s, n, kept, ends, k = string.match(index[i + 1], '^(%a+):(%x*):(%d+):(%d+):(%d+):(%x*)$')
  if not q then
    return redis.error_reply('ERR the mailbox holds an entry that is not ours')
  end
  local letter = {number = tonumber(index[i]), sender = s, size = tonumber(n), kept = tonumber(kept),
    ends = tonumber(ends)}
  if letter.ends <= now_ms then
    table.insert(gone, letter.number)
  elseif q == queue and k == key then
    table.insert(gone, letter.number)
    grown = grown - letter.size
  else
    letters, bytes = letters + 1, bytes + letter.size
    if q == queue then
      table.insert(mine, letter)
      queue_letters, queue_bytes = queue_letters + 1, queue_bytes + letter.size
    else
      newest_ms = math.max(newest_ms, letter.kept)
      last_end_ms = math.max(last_end_ms, letter.ends)
    end
  end
end
table.sort(mine, function(a, b) return a.number < b.number end)

-- The new letter counts before anybody makes room for it.
letters, bytes, grown = letters + 1, bytes + size, grown + size
queue_letters, queue_bytes = queue_letters + 1, queue_bytes + size

local dropped = 0
local function crowded_by_bytes()
  return queue_bytes > max_bytes or grown > room
end
if crowded_by_bytes() or queue_letters > max_letters then
  -- Per sender: its letters and bytes, and which of its letters is the oldest that is left.
  local senders, order = {}, {}
  for position, letter in ipairs(mine) do
    local s = senders[letter.sender]
    if not s then
      s = {letters = 0, bytes = 0, held = {}, first = 1}
      senders[letter.sender] = s
      table.insert(order, s)
    end
    s.letters, s.bytes = s.letters + 1, s.bytes + letter.size
    table.insert(s.held, position)
  end
  local own = senders[sender]
  if not own then
    own = {letters = 0, bytes = 0, held = {}, first = 1}
    table.insert(order, own)
  end
  own.letters, own.bytes = own.letters + 1, own.bytes + size

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
    local heaviest = own
    for _, s in ipairs(order) do
      if s[weight] > heaviest[weight] or (s[weight] == heaviest[weight] and heaviest ~= own
          and s.held[s.first] < heaviest.held[heaviest.first]) then
        heaviest = s
      end
    end
    local position = heaviest.held[heaviest.first]
    if not position then
      return {'mailbox-full'}
    end
    local letter = mine[position]
    letter.dropped = true
    table.insert(gone, letter.number)
    dropped = dropped + 1
    heaviest.first = heaviest.first + 1
    heaviest.letters, heaviest.bytes = heaviest.letters - 1, heaviest.bytes - letter.size
    letters, bytes, grown = letters - 1, bytes - letter.size, grown - letter.size
    queue_letters, queue_bytes = queue_letters - 1, queue_bytes - letter.size
  end
end
for _, letter in ipairs(mine) do
  if not letter.dropped then
    newest_ms = math.max(newest_ms, letter.kept)
    last_end_ms = math.max(last_end_ms, letter.ends)
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
return {'ok', number, letters, bytes, newest_ms, number, dropped}
