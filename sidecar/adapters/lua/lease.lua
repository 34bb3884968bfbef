-- Lead, or lead on, or see who leads.
-- KEYS: 1 lease
-- ARGV: 1 holder, 2 name, 3 '1' if LND streams to it, else '0', 4 milliseconds to lead for,
--       5... what it has dealt with: stream, marks, stream, marks
-- Returns {'ok', 1 if it leads now, 1 if it did not before, name of who leads or '', fence,
--          1 if nobody has dealt with more than the marks tell, marks as they were before}.
--
-- A holder leads on for as long as nobody else took over, also when its time has run out. One that hears
-- LND takes over when there is no holder, when the holder's time has run out, or when that one is deaf.
-- Who only looks changes nothing.
local held = {}
local record = redis.call('HGETALL', KEYS[1])
local done = {}
for i = 1, #record, 2 do
  held[record[i]] = record[i + 1]
  if string.find(record[i], '^done:') then
    table.insert(done, string.sub(record[i], 6))
    table.insert(done, record[i + 1])
  end
end
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local ours = held.holder == ARGV[1]
local free = not held.holder or held.holder == '' or tonumber(held.until_ms) <= now_ms
local new = not ours and ARGV[3] == '1' and (free or held.hears == '0')
if not ours and not new then
  return {'ok', 0, 0, free and '' or held.name, tonumber(held.fence or 0), 0, done}
end

-- Not just one more: a Redis that was restored from an older state must not give out a fence twice.
local fence = tonumber(held.fence or 0)
local alone = 0
if new then
  fence = math.max(fence + 1, tonumber(time[1]))
  if not held.holder or held.drained == '1' then
    alone = 1
  end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'name', ARGV[2], 'fence', string.format('%d', fence))
end
local fields = {'hears', ARGV[3], 'until_ms', string.format('%d', now_ms + tonumber(ARGV[4]))}
for i = 5, #ARGV, 2 do
  table.insert(fields, 'done:' .. ARGV[i])
  table.insert(fields, ARGV[i + 1])
end
redis.call('HSET', KEYS[1], unpack(fields))
return {'ok', 1, new and 1 or 0, ARGV[2], fence, alone, done}
