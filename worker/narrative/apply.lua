-- Adds one batch of signals to their months and moves the fences, or does nothing at all.
--
-- KEYS[1]  hash of fences: topic:partition -> last applied offset
-- KEYS[2]  set of the months that have articles
-- KEYS[3..] one hash a month: a:<source> articles, n:<source> negatives, p:<source> thousandths
-- ARGV     F, then F times (partition, expected fence or '', new fence)
--          then entries of (key index, month, source, articles, negatives, thousandths)
-- Returns  an empty list when applied; else the fences that stand, '' for none, and nothing is changed.

local count = tonumber(ARGV[1])
local partitions, fences = {}, {}
for i = 1, count do
  partitions[i] = ARGV[3 * i - 1]
  fences[2 * i - 1], fences[2 * i] = ARGV[3 * i - 1], ARGV[3 * i + 1]
end
local standing = redis.call('HMGET', KEYS[1], unpack(partitions))
local agreed, answer = true, {}
for i = 1, count do
  answer[i] = standing[i] or ''
  agreed = agreed and answer[i] == ARGV[3 * i]
end
if not agreed then
  return answer
end

redis.call('HSET', KEYS[1], unpack(fences))
for at = 3 * count + 2, #ARGV, 6 do
  local key, source = KEYS[tonumber(ARGV[at])], ARGV[at + 2]
  redis.call('SADD', KEYS[2], ARGV[at + 1])
  redis.call('HINCRBY', key, 'a:' .. source, ARGV[at + 3])
  redis.call('HINCRBY', key, 'n:' .. source, ARGV[at + 4])
  redis.call('HINCRBY', key, 'p:' .. source, ARGV[at + 5])
end
return {}
