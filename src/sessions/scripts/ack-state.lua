-- Forgets a state change unless a newer one has taken its place.
-- KEYS state
-- ARGV member, the record as it was read
-- Reply: OK

if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return { 'OK' }
