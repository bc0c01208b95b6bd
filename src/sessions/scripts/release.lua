-- Ends a lease without an event.
-- KEYS meta, due, bell, arch, state, sbell
-- ARGV member, token, seen seq, kind, reason or ms from now
-- Reply: OK | MORE, seq | FENCED | NOSESSION

local keys = { meta = KEYS[1], due = KEYS[2], bell = KEYS[3], arch = KEYS[4], state = KEYS[5],
  sbell = KEYS[6] }
local token = ARGV[2]
local meta = redis.call('HMGET', keys.meta, 'seq', 'st', 'why', 'src', 'tok', 'rel')
if not meta[1] then return { 'NOSESSION' } end
if not holds(meta[5], token) then
  local repeated = meta[5] == '' and token ~= '' and meta[6] == token
  return { repeated and 'OK' or 'FENCED' }
end
local log = { seq = tonumber(meta[1]), st = meta[2], why = meta[3], src = meta[4] }
local unseen = log.seq > tonumber(ARGV[3])
if unseen and ARGV[4] == 'idle' then return { 'MORE', int(log.seq) } end
give_up(keys, ARGV[1], log, token, ARGV[4], ARGV[5], unseen, now_ms())
return { 'OK' }
