-- Lets an unleased session be claimed.
-- KEYS meta, due, bell
-- ARGV member
-- Reply: OK | CLOSED | NOSESSION

local keys = { due = KEYS[2], bell = KEYS[3] }
local meta = redis.call('HMGET', KEYS[1], 'st', 'tok')
if not meta[1] then return { 'NOSESSION' } end
if meta[1] == 'terminated' then return { 'CLOSED' } end
if meta[2] == '' then make_due(keys, ARGV[1], { st = meta[1] }, now_ms()) end
return { 'OK' }
