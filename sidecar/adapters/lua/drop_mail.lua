-- Forget letters of a client's mailbox, and those that have expired.
-- KEYS: 1 client record, 2 mailbox, 3 index of the mailbox, and, but not in a Cluster, whose slots they
--       would be two of: 4 uses of all mailboxes
-- ARGV: 1 client id (hex), 2... the letters' numbers
-- Returns {'ok', letters, bytes, newest_ms, change}; all 0 for a client that is not there.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'ok', 0, 0, 0, 0}
end
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local asked, gone = {}, {}
for i = 2, #ARGV do
  asked[ARGV[i]] = true
end
local letters, bytes, newest_ms = 0, 0, 0
local index = redis.call('HGETALL', KEYS[3])
for i = 1, #index, 2 do
  local size, kept, ends = string.match(index[i + 1], '^%a+:%x*:(%d+):(%d+):(%d+):%x*$')
  if not size then
    return redis.error_reply('ERR the mailbox holds an entry that is not ours')
  end
  if asked[index[i]] or tonumber(ends) <= now_ms then
    table.insert(gone, index[i])
  else
    letters, bytes = letters + 1, bytes + tonumber(size)
    newest_ms = math.max(newest_ms, tonumber(kept))
  end
end
for _, number in ipairs(gone) do
  redis.call('HDEL', KEYS[2], number)
  redis.call('HDEL', KEYS[3], number)
end
local change = redis.call('HINCRBY', KEYS[1], 'mail', 1)
if KEYS[4] and letters > 0 then
  redis.call('HSET', KEYS[4], ARGV[1], string.format('%d:%d:%d:%d', letters, bytes, newest_ms, change))
elseif KEYS[4] then
  redis.call('HDEL', KEYS[4], ARGV[1])
end
return {'ok', letters, bytes, newest_ms, change}
