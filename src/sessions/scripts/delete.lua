-- Removes everything a session owns; a holder then gets NOSESSION. Open sandbox requests are few,
-- so looking through them is cheap.
-- KEYS meta, log, idempotency keys, payloads, preview, snapshot, due, index, hands, state, arch,
--   bound sandboxes
-- ARGV member, session id, channel
-- Reply: OK

redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[12])
redis.call('ZREM', KEYS[7], ARGV[1])
redis.call('ZREM', KEYS[8], ARGV[2])
local hands = redis.call('HGETALL', KEYS[9])
for i = 1, #hands, 2 do
  if field(hands[i + 1], 'member') == ARGV[1] then redis.call('HDEL', KEYS[9], hands[i]) end
end
redis.call('HDEL', KEYS[10], ARGV[1])
redis.call('ZREM', KEYS[11], ARGV[1])
redis.call('SPUBLISH', ARGV[3], '0:0')
return { 'OK' }
