-- Read some fields of the clients in an index, part by part; only of those that have any but `state`,
-- or whose state is not `active`.
-- KEYS: 1 index (names or nodes), whose values are client ids (hex)
-- ARGV: 1 prefix of the node's keys, 2 cursor, 3 entries at once, 4 'state', 5... other fields
-- Returns {next cursor, or '0', a string}: in the string, as in load.lua's, an entry of the index, its
-- client id and the fields' values, then the next entry and so on.
--
-- The clients' records are in many Cluster slots: this is for a single server.
local cursor, part = unpack(redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3]))
local sizes, values = {}, {}
local function add(value)
  table.insert(sizes, value and #value or -1)
  table.insert(values, value or '')
end
for i = 1, #part, 2 do
  local found = redis.call('HMGET', ARGV[1] .. '{' .. part[i + 1] .. '}', unpack(ARGV, 4))
  local usual = found[1] == 'active'
  for j = 2, #found do
    usual = usual and not found[j]
  end
  if not usual then
    add(part[i])
    add(part[i + 1])
    for _, value in ipairs(found) do
      add(value)
    end
  end
end
return {cursor, table.concat(sizes, ' ') .. '\n' .. table.concat(values)}
