-- Put what an import has of one Cluster slot in force.
-- KEYS: pairs of a key that was written aside, and the key that it becomes
-- Returns {'ok', ''}, or {'ok', a key that is there already} and nothing changed.
for i = 2, #KEYS, 2 do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    return {'ok', KEYS[i]}
  end
end
for i = 1, #KEYS, 2 do
  -- What has expired since it was written is not there any more.
  if redis.call('EXISTS', KEYS[i]) == 1 then
    redis.call('RENAME', KEYS[i], KEYS[i + 1])
  end
end
return {'ok', ''}
