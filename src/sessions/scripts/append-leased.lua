-- Appends a batch of the lease holder, checked in the order token, repeated batch, log-matching
-- prefix, ordinal, tail; may end the lease in the same step.
-- KEYS meta, log, due, bell, hands, hbell, state, sbell, arch, payloads
-- ARGV member, channel, token, n, prev seq, prev id, prev chain, only if tail 0|1,
--      release kind or '', release reason or ms from now, payloads, events*
-- Reply: OK, first, last, chain | DUP, first, last, chain | MORE, seq | REWOUND, seq | FENCED |
--        NOSESSION; chain = chain value of the last

local keys = { meta = KEYS[1], log = KEYS[2], due = KEYS[3], bell = KEYS[4], hands = KEYS[5],
  hbell = KEYS[6], state = KEYS[7], sbell = KEYS[8], arch = KEYS[9], payloads = KEYS[10] }
local member, token, n = ARGV[1], ARGV[3], tonumber(ARGV[4])
local meta = redis.call('HMGET', keys.meta, 'seq', 'lid', 'lts', 'st', 'why', 'src', 'tok', 'rel',
  'wn', 'wid', 'ws', 'wc', 'ep', 'ch')
if not meta[1] then return { 'NOSESSION' } end

local log = { seq = tonumber(meta[1]), lid = meta[2], lts = tonumber(meta[3]), st = meta[4],
  why = meta[5], src = meta[6], chain = chain_of(meta[14], tonumber(meta[1])) }
local held = holds(meta[7], token)
local gave_up = meta[7] == '' and token ~= '' and meta[8] == token
local at = first_event(11)
if n == tonumber(meta[9]) and ARGV[at] == meta[10] and (held or gave_up) then
  touch(keys.meta)
  local last = tonumber(meta[11]) + tonumber(meta[12]) - 1
  local _, chain = entry_at(keys, last)
  return { 'DUP', meta[11], int(last), chain or '' }
end
if not held then return { 'FENCED' } end

local prev_seq = tonumber(ARGV[5])
if not matches(keys, log, prev_seq, ARGV[6], ARGV[7]) or n ~= tonumber(meta[9]) + 1 then
  return { 'REWOUND', int(log.seq) }
end
local unseen = log.seq > prev_seq
if unseen and (ARGV[8] == '1' or ARGV[9] == 'idle') then return { 'MORE', int(log.seq) } end

local now = now_ms()
local first = log.seq + 1
store_payloads(keys, 11)
append(keys, log, tonumber(meta[13]), at, now)
redis.call('HSET', keys.meta, 'wn', ARGV[4], 'wid', ARGV[at], 'ws', int(first),
  'wc', int(log.seq - first + 1), 'wt', ARGV[#ARGV - 1])
local progressed = false
for i = at, #ARGV, 3 do
  local type_ = ARGV[i + 1]
  if type_ == 'model.request_end' or type_ == 'tool.result' then progressed = true end
  local kind = type_ == 'sandbox.requested' and 'provision'
    or type_ == 'sandbox.released' and 'release'
  if kind then
    local hand, generation = field(ARGV[i + 2], 'hand'), field(ARGV[i + 2], 'generation')
    if type(hand) == 'string' and type(generation) == 'number' then
      redis.call('HSET', keys.hands, ARGV[i], cjson.encode({ member = member, kind = kind,
        hand = hand, generation = generation }))
      ring(keys.hbell)
    end
  end
end
if progressed then redis.call('HSET', keys.meta, 'tk', '0') end

if ARGV[9] == '' then
  set_status(keys, member, log, 'running', '', now)
else
  give_up(keys, member, log, token, ARGV[9], ARGV[10], unseen, now)
end
publish(ARGV[2], first, log.seq)
return { 'OK', int(first), int(log.seq), log.chain }
