-- Adds one batch to one coin and moves its fences, or does nothing at all.
--
-- KEYS[1]  state of the coin; KEYS[2..] the keys that the entries below name by index
-- ARGV     F, then F times (partition, expected fence or '', new fence)
--          oldest and newest event time of the batch, or '' and ''
--          buckets: entries of (key index, byte offset, expiry, bucket to add)
--          authors: entries of (key index, bytes of the names, expiry, names joined by spaces)
--          both packed, since the client spends a microsecond on every argument
-- Returns  an empty list when applied; else the fences that stand, '' for none, and nothing is changed.
--
-- Only commands and libraries of Redis 7; every key is declared and of one slot.

local COUNTS, SUMS = 20, 5
local FORMAT = '<' .. string.rep('I4', COUNTS) .. string.rep('i8', SUMS + 1)
local SIZE = COUNTS * 4 + (SUMS + 1) * 8
local NEWEST = COUNTS + SUMS + 1
local ENTRY, ENTRY_SIZE = '<I4I4i8', 16

local position = 0
local function take()
  position = position + 1
  return ARGV[position]
end

local function add(key, offset, packed, at)
  local stored = redis.call('GETRANGE', key, offset, offset + SIZE - 1)
  local bucket
  if #stored == SIZE then
    local total = {struct.unpack(FORMAT, stored)}
    local added = {struct.unpack(FORMAT, packed, at)}
    for column = 1, NEWEST - 1 do
      total[column] = total[column] + added[column]
    end
    total[NEWEST] = math.max(total[NEWEST], added[NEWEST])
    bucket = struct.pack(FORMAT, unpack(total, 1, NEWEST))
  else
    bucket = string.sub(packed, at, at + SIZE - 1)
  end
  redis.call('SETRANGE', key, offset, bucket)
end

local function add_authors(key, names)
  local chunk = {}
  for name in string.gmatch(names, '%S+') do
    chunk[#chunk + 1] = name
    if #chunk == 1000 then -- Lua unpacks at most some 8,000 values
      redis.call('PFADD', key, unpack(chunk))
      chunk = {}
    end
  end
  if #chunk > 0 then
    redis.call('PFADD', key, unpack(chunk))
  end
end

local partitions, expected, fences = {}, {}, {}
for i = 1, tonumber(take()) do
  partitions[i], expected[i] = take(), take()
  fences[2 * i - 1], fences[2 * i] = partitions[i], take()
end

local standing = redis.call('HMGET', KEYS[1], 'first', 'newest', unpack(partitions))
local agreed = true
local answer = {}
for i = 1, #partitions do
  answer[i] = standing[i + 2] or ''
  agreed = agreed and answer[i] == expected[i]
end
if not agreed then
  return answer
end

local first, newest = tonumber(take()), tonumber(take())
if first then
  if first < (tonumber(standing[1] or nil) or math.huge) then
    fences[#fences + 1], fences[#fences + 2] = 'first', string.format('%.0f', first)
  end
  if newest > (tonumber(standing[2] or nil) or -math.huge) then
    fences[#fences + 1], fences[#fences + 2] = 'newest', string.format('%.0f', newest)
  end
end
redis.call('HSET', KEYS[1], unpack(fences))

local buckets = take()
local at = 1
while at <= #buckets do
  local index, offset, expiry = struct.unpack(ENTRY, buckets, at)
  add(KEYS[index], offset, buckets, at + ENTRY_SIZE)
  redis.call('EXPIREAT', KEYS[index], string.format('%.0f', expiry))
  at = at + ENTRY_SIZE + SIZE
end

local authors = take()
at = 1
while at <= #authors do
  local index, length, expiry = struct.unpack(ENTRY, authors, at)
  at = at + ENTRY_SIZE + length
  add_authors(KEYS[index], string.sub(authors, at - length, at - 1))
  redis.call('EXPIREAT', KEYS[index], string.format('%.0f', expiry))
end

return {}
