-- Put an import in force: what was written aside takes its place, all in one step.
-- KEYS: 1 set of the keys that were written aside
-- ARGV: 1 prefix of the node's keys, 2 prefix of the keys that were written aside
-- (redis_backup.py says how those are called)
-- Returns {'ok', ''}, or {'ok', a key that is there already} and nothing changed.
--
-- The keys are in many Cluster slots: this is for a single server, put_in_force.lua for a Cluster.
local function aside(name)
  if string.find(name, '{', 1, true) then
    return ARGV[2] .. name
  end
  return ARGV[2] .. '{' .. ARGV[1] .. name .. '}'
end

local names = redis.call('SMEMBERS', KEYS[1])
for _, name in ipairs(names) do
  if redis.call('EXISTS', ARGV[1] .. name) == 1 then
    return {'ok', name}
  end
end
for _, name in ipairs(names) do
  -- What has expired since it was written is not there any more.
  if redis.call('EXISTS', aside(name)) == 1 then
    redis.call('RENAME', aside(name), ARGV[1] .. name)
  end
end
redis.call('DEL', KEYS[1])
return {'ok', ''}
