"""What Redis does in one step: the scripts that write and claim, for nothing may change between a look and a write.

A script is not undone half-way, so each looks at everything first. Memory and disk are looked at by Redis before the
first command that writes; the rights to all of them are tried at the start.
"""

from typing import Final

FENCED: Final = 0
ACCEPTED: Final = 1

WRITE_SCRIPT: Final = """
-- KEYS: record, journal. ARGV: epoch, record or '', seconds to live, the record's time, then number, seq, heard and text of
-- each entry. Answers 1 accepted, 0 fenced, -n: number n was expected.
local known = redis.call('HMGET', KEYS[1], 'epoch', 'number', 'updated')
if not known[1] and ARGV[2] == '' then return 0 end
local epoch = tonumber(known[1] or 0)
if epoch > tonumber(ARGV[1]) then return 0 end
local last = tonumber(known[2] or 0)
local expected = last + 1
for i = 5, #ARGV, 4 do
  local number = tonumber(ARGV[i])
  if number > expected then return -expected end
  if number == expected then expected = expected + 1 end
end
local upto = last
for i = 5, #ARGV, 4 do
  upto = tonumber(ARGV[i])
  if upto > last then redis.call('XADD', KEYS[2], ARGV[i] .. '-0', 'entry', ARGV[i + 3]) end
end
if upto > last then
  redis.call('HSET', KEYS[1], 'number', upto, 'seq', ARGV[#ARGV - 2], 'heard', ARGV[#ARGV - 1])
end
-- A record that arrives late is passed over: another one of the same owner, with more behind it, is there.
local is_late = epoch == tonumber(ARGV[1])
  and (upto < last or (upto == last and tonumber(known[3] or 0) > tonumber(ARGV[4])))
if ARGV[2] ~= '' and not is_late then
  redis.call('HSET', KEYS[1], 'record', ARGV[2], 'epoch', ARGV[1], 'updated', ARGV[4])
end
if ARGV[2] ~= '' then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
redis.call('EXPIRE', KEYS[2], redis.call('TTL', KEYS[1]))
return 1
"""

CLAIM_SCRIPT: Final = """
-- KEYS: record. ARGV: the record that was judged, the record to be, its epoch and time. Answers 1 when nobody came between.
if redis.call('HGET', KEYS[1], 'record') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[2], 'epoch', ARGV[3], 'updated', ARGV[4])
return 1
"""
