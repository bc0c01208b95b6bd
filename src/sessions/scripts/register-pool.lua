-- Gives a free code to a pool, or updates the record of the pool that has it.
-- KEYS config
-- ARGV uid, name, partitions, schema version, commit mode
-- Reply: uid, name, partitions, commit mode of the pool that has the code now

local uid = redis.call('HGET', KEYS[1], 'uid')
if not uid or uid == ARGV[1] then
  redis.call('HSET', KEYS[1], 'uid', ARGV[1], 'name', ARGV[2], 'partitions', ARGV[3], 'ver', ARGV[4],
    'commit', ARGV[5])
end
return redis.call('HMGET', KEYS[1], 'uid', 'name', 'partitions', 'commit')
