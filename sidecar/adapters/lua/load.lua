-- A client and one slot of it, as they are at this moment.
-- KEYS: 1 client record, 2 slot
-- ARGV: 1 slot number
-- Returns one string: a line with the size of each value (-1: there is none), then the values, one right
-- behind the other. Much of what an answer costs its reader is the number of its parts.
-- The values: Redis's clock in milliseconds, the slot's entry, the slot, and what the record has of FIELDS.
local FIELDS = {'name', 'state', 'generation', 'created_at', 'node_id', 'bound_by', 'timestamps', 'slots',
  'bytes', 'ttl', 'requests_per_second', 'requests_burst', 'stores_per_minute', 'offer_paths_per_minute',
  'mailbox_letters', 'mailbox_bytes', 'revoked_ms'}
local found = redis.call('HMGET', KEYS[1], ARGV[1], unpack(FIELDS))
local time = redis.call('TIME')
local now_ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local values = {now_ms, found[1], redis.call('GET', KEYS[2]), unpack(found, 2)}
local sizes = {}
for i, value in ipairs(values) do
  if value then
    sizes[i] = #value
  else
    sizes[i], values[i] = -1, ''
  end
end
return table.concat(sizes, ' ') .. '\n' .. table.concat(values)
