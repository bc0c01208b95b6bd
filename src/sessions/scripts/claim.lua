-- Takes sessions of a partition whose time has come: one holder per token, by construction.
-- The rules for leases that ran out are those of takeover.ts.
-- KEYS due, state, sbell, alive        (keys of sessions are computed: same slot)
-- ARGV prefix of keys, worker, nonce, ttl ms, max, steal expired leases 0|1,
--      suspect that the worker holds or '', may take a suspect 0|1, last answer here or '', ms quiet since
-- Reply: now, claimed*, unsettled*;
--        claimed = member, epoch, token, seq, deaths in a row, previous owner;
--        unsettled = member, epoch, st, why

local QUARANTINE_AFTER = 5
local SUSPECT_AFTER = 2
local LONGEST_PAUSE_MS = 60000
local SPARE_LIVES = 2
-- A worker that is slow itself sees the store stand still all the time; so long a grace is none.
local GRACE_LIVES = 8
local TELL_AGAIN_MS = 1000
local WAITING = { ['sandbox.requested'] = true, ['session.error'] = true }
local ERROR = '{"type":"quarantined_error","message":"five workers in a row died while they worked ' ..
  'on this session, so it is set aside; suspend it and let it run again to try once more",' ..
  '"retry_status":"terminal"}'
-- Sessions that must be left alone stand in front of sessions that are free.
local SPARE = 256

local keys = { due = KEYS[1], state = KEYS[2], sbell = KEYS[3], alive = KEYS[4] }
local prefix, worker, nonce = ARGV[1], ARGV[2], ARGV[3]
local ttl, max = tonumber(ARGV[4]), tonumber(ARGV[5])
local suspect, takes_suspect = ARGV[7], ARGV[8] == '1'
local now = now_ms()
local caller = incarnation_of('0.' .. nonce)
local steals = ARGV[6] == '1'
local grace = in_grace(keys.alive, ttl, ARGV[9], ARGV[10], now)
local claimed, unsettled = {}, {}

-- Time of the last word of a holder and the suspect it named; nil when it was never heard of.
local function heard(incarnation)
  local at, named = string.match(redis.call('HGET', keys.alive, incarnation) or '', '^(%d+):(.*)$')
  return tonumber(at), named
end

-- Deaths that were counted and whose worker has not been heard of since: list, count.
local function still_dead(tk, kl)
  if tk == 0 then return '', 0 end
  local deaths, struck = {}, 0
  for incarnation, at in string.gmatch(kl, '(%w+)@(%d+)') do
    local word = heard(incarnation)
    if word and word >= tonumber(at) then struck = struck + 1
    else deaths[#deaths + 1] = incarnation .. '@' .. at end
  end
  return table.concat(deaths, ' '), math.max(0, tk - struck)
end

-- Of an expired lease: wait | take | pause | quarantine, deaths in a row, list of them, end of the pause
local function judge(member, m, due)
  local holder = incarnation_of(m.tok)
  local at, named
  if holder ~= '' then at, named = heard(holder) end
  local kl, count = still_dead(m.tk, m.kl)
  if holder ~= '' and (holder == caller or (at and now - at < ttl)) then
    if now - due < SPARE_LIVES * ttl then return 'wait' end
    return 'take', count, kl
  end
  if m.dt == m.tok then return 'take', count, kl end
  local waits = m.wn > 0 and WAITING[m.wt] and m.seq == m.ws + m.wc - 1
  if waits or (named and named ~= '' and named ~= member) then return 'take', count, kl end
  local tk = count + 1
  kl = kl .. (kl == '' and '' or ' ') .. (holder == '' and 'unknown' or holder) .. '@' .. int(now)
  if tk >= QUARANTINE_AFTER then return 'quarantine', tk, kl end
  if tk < SUSPECT_AFTER then return 'take', tk, kl end
  return 'pause', tk, kl, now + math.min(LONGEST_PAUSE_MS, ttl * 4 ^ (tk - 1))
end

local function tell(member, epoch, st, why)
  redis.call('ZADD', keys.due, int(now + TELL_AGAIN_MS), member)
  unsettled[#unsettled + 1] = { member, epoch, st, why }
end

local function give(member, m, tk, kl)
  local epoch = int(tonumber(m.ep) + 1)
  local token = epoch .. '.' .. nonce
  redis.call('HSET', keys.meta, 'ep', epoch, 'tok', token, 'own', worker, 'rel', '', 'wn', '0',
    'wid', '', 'ws', '0', 'wc', '0', 'wt', '', 'tk', int(tk), 'kl', kl, 'dt', '')
  redis.call('ZADD', keys.due, int(now + ttl), member)
  if tk >= SUSPECT_AFTER then
    suspect = member
    takes_suspect = false
  end
  claimed[#claimed + 1] = { member, epoch, token, int(m.seq), int(tk), m.own }
end

-- Says so in the log in the same step: a quarantine that nobody hears of must not be possible.
local function set_aside(member, m, tk, kl)
  local log = { seq = m.seq, lid = m.lid, lts = m.lts, chain = m.chain, st = m.st, why = m.why,
    src = m.src }
  keys.log = prefix .. member .. ':l'
  local id = 'sevt_' .. string.sub(redis.sha1hex(member .. ' ' .. m.tok), 1, 32)
  append_one(keys, log, 0, id, 'session.error', ERROR, now)
  write_tail(keys, log)
  redis.call('HSET', keys.meta, 'tok', '', 'own', '', 'rel', '', 'tk', int(tk), 'kl', kl, 'dt', '',
    'qr', '1')
  set_status(keys, member, log, 'quarantined', 'takeovers', now)
  publish(prefix .. member .. ':n', log.seq, log.seq)
  tell(member, m.ep, log.st, log.why)
end

local found = redis.call('ZRANGE', keys.due, '-inf', int(now), 'BYSCORE', 'LIMIT', 0, max + SPARE,
  'WITHSCORES')
for i = 1, #found, 2 do
  if #claimed >= max then break end
  local member, due = found[i], tonumber(found[i + 1])
  keys.meta = prefix .. member .. ':m'
  local v = redis.call('HMGET', keys.meta, 'seq', 'lid', 'lts', 'st', 'why', 'src', 'tok', 'ep', 'tk',
    'own', 'kl', 'dt', 'wt', 'wn', 'ws', 'wc', 'qr', 'ch')
  if not v[1] then
    redis.call('ZREM', keys.due, member)
  elseif v[17] == '1' then
    tell(member, v[8], v[4], v[5])
  elseif UNCLAIMABLE[v[4]] then
    redis.call('ZREM', keys.due, member)
  else
    local m = { seq = tonumber(v[1]), lid = v[2], lts = tonumber(v[3]), st = v[4], why = v[5],
      src = v[6], tok = v[7], ep = v[8], tk = tonumber(v[9]), own = v[10], kl = v[11] or '',
      dt = v[12] or '', wt = v[13] or '', wn = tonumber(v[14]), ws = tonumber(v[15]),
      wc = tonumber(v[16]), chain = chain_of(v[18], tonumber(v[1])) }
    if m.tok == '' then
      give(member, m, 0, '')
    elseif steals and (not grace or now - due > GRACE_LIVES * ttl) then
      local verdict, tk, kl, until_ = judge(member, m, due)
      if verdict == 'quarantine' then
        set_aside(member, m, tk, kl)
      elseif verdict == 'pause' then
        redis.call('HSET', keys.meta, 'tk', int(tk), 'kl', kl, 'dt', m.tok)
        redis.call('ZADD', keys.due, int(until_), member)
      elseif verdict == 'take' and (tk < SUSPECT_AFTER or takes_suspect) then
        give(member, m, tk, kl)
      end
    end
  end
end
if #claimed > 0 then heard_of(keys.alive, caller, suspect, now) end
return { int(now), claimed, unsettled }
