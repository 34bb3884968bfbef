-- Put an import in force: what was written aside takes its place, all in one step.
-- KEYS: 1 set of the keys that were written aside
-- ARGV: 1 prefix of the node's keys, 2 prefix of the keys that were written aside
-- Returns {'ok', ''}, or {'ok', a key that is there already} and nothing changed.
--
-- The keys are many and in many Cluster slots: a single server is asked for (redis_setup.py).
local names = redis.call('SMEMBERS', KEYS[1])
for _, name in ipairs(names) do
  if redis.call('EXISTS', ARGV[1] .. name) == 1 then
    return {'ok', name}
  end
end
for _, name in ipairs(names) do
  -- What has expired since it was written is not there any more.
  if redis.call('EXISTS', ARGV[2] .. name) == 1 then
    redis.call('RENAME', ARGV[2] .. name, ARGV[1] .. name)
  end
end
redis.call('DEL', KEYS[1])
return {'ok', ''}
