-- Carries out one change of the state, as a whole or not at all. What it means is said by Change.applied_to in state.py.
--
-- KEYS: the document; the sign that this change was made; where a replaced unreadable document is kept
-- ARGV: the change; the deadline in milliseconds since 1970; updated_at as JSON; for how many milliseconds the sign
--       stays; the most bytes that a document may have; which unreadable document may be replaced; the channel
--
-- cjson reads, but never writes documents: it turns [] into {} and rounds numbers to 14 digits. What a change leaves
-- alone stays byte for byte, also members that this script knows nothing of.

local key, sign, aside = KEYS[1], KEYS[2], KEYS[3]
local deadline, updated_at, kept_for = tonumber(ARGV[2]), ARGV[3], ARGV[4]
local most_bytes, replaceable, channel = tonumber(ARGV[5]), ARGV[6], ARGV[7]

local find, sub, byte = string.find, string.sub, string.byte
local QUOTE, OPEN, OPEN_LIST = byte('"{[', 1, 3)

-- The place of the quote that ends a JSON string, which begins at a place.
local function end_of_string(text, at)
  at = find(text, '["\\]', at + 1)
  while byte(text, at) ~= QUOTE do
    at = find(text, '["\\]', at + 2)
  end
  return at
end

-- The place after the value of a JSON object's member, which begins at a place.
local function after_value(text, at)
  local char, depth = byte(text, at), 0
  if char == QUOTE then
    return end_of_string(text, at) + 1
  elseif char ~= OPEN and char ~= OPEN_LIST then
    return find(text, '[,}]', at)
  end
  repeat
    if char == QUOTE then
      at = end_of_string(text, at)
    else
      depth = depth + ((char == OPEN or char == OPEN_LIST) and 1 or -1)
    end
    if depth == 0 then
      return at + 1
    end
    at = find(text, '["%[%]{}]', at + 1)
    char = byte(text, at)
  until false
end

-- The names of a JSON object's members in their order, and the text of each value; it must be valid JSON.
local function members(object)
  local names, texts = {}, {}
  local at = find(object, '["}]')
  while byte(object, at) == QUOTE do
    local to = end_of_string(object, at)
    local name = sub(object, at + 1, to - 1)
    if find(name, '\\', 1, true) then
      name = cjson.decode('["' .. name .. '"]')[1]
    end
    at = find(object, '[^%s:]', to + 1)
    to = after_value(object, at)
    if not texts[name] then
      names[#names + 1] = name
    end
    texts[name] = sub(object, at, to - 1)
    at = find(object, '["}]', to)
  end
  return names, texts
end

local function object_of(names, texts)
  local parts = {}
  for _, name in ipairs(names) do
    if texts[name] then
      parts[#parts + 1] = cjson.encode(name) .. ':' .. texts[name]
      texts[name] = nil
    end
  end
  return '{' .. table.concat(parts, ',') .. '}'
end

local stored = redis.pcall('GET', key)
local readable = type(stored) ~= 'table' -- else an error: the key has another type
if redis.call('EXISTS', sign) == 1 then
  return { 'applied', readable and stored or '' }
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if now > deadline then
  return { 'late' }
end

local state, names, texts = {}, {}, {}
local replaced = replaceable ~= '' and replaceable == (readable and redis.sha1hex(stored or '') or 'another type')
if stored and not replaced then
  if not readable then
    return { 'unreadable' }
  end
  readable, state = pcall(cjson.decode, stored)
  if not readable or type(state) ~= 'table' or not find(stored, '^%s*{') then
    return { 'unreadable' }
  end
  names, texts = members(stored)
end
local version, holds = state.version or 0, state.holds or {}
if type(version) ~= 'number' or type(holds) ~= 'table' then
  return { 'unreadable' }
end

local change = cjson.decode(ARGV[1])
local _, change_texts = members(ARGV[1])

if change.expected_version ~= cjson.null and change.expected_version ~= version then
  return { 'conflict', string.format('%.0f', version) }
end
local alive = {}
for id, hold in pairs(holds) do
  local ends = hold.expires_at
  alive[id] = ends == nil or ends == cjson.null or now < ends
end
local lost = { 'lost' }
for _, id in ipairs(change.required_holds) do
  if not holds[id] then
    lost[#lost + 1] = id
  end
end
if #lost > 1 then
  return lost
end
if change.refuse_while_held then
  local held = { 'held' }
  for id, hold in pairs(holds) do
    if alive[id] and hold.kind == 'on' then
      held[#held + 1] = hold.owner or ''
    end
  end
  if #held > 1 then
    return held
  end
end

local ids, hold_texts = members(texts.holds or '{}')
for _, id in ipairs(ids) do
  if change.break_holds or not alive[id] then
    hold_texts[id] = nil
  end
end
for _, id in ipairs(change.drop_holds) do
  hold_texts[id] = nil
end
local put_ids, put_texts = members(change_texts.put_holds)
for _, id in ipairs(put_ids) do
  if not hold_texts[id] then
    -- It goes to the end; where it stood before it was dropped, there is nothing to write any more.
    for place, other in ipairs(ids) do
      if other == id then
        table.remove(ids, place)
        break
      end
    end
    ids[#ids + 1] = id
  end
  hold_texts[id] = put_texts[id]
  if change.ttl ~= cjson.null then
    local hold_names, texts_of_hold = members(put_texts[id])
    hold_names[#hold_names + 1] = 'expires_at'
    texts_of_hold.expires_at = string.format('%.0f', now + change.ttl)
    hold_texts[id] = object_of(hold_names, texts_of_hold)
  end
end
if not texts.holds then
  names[#names + 1] = 'holds'
end
texts.holds = next(hold_texts) and object_of(ids, hold_texts) or nil

if not change.is_renewal then
  local field_names, field_texts = members(change_texts.fields)
  for _, name in ipairs(field_names) do
    names[#names + 1] = name
    texts[name] = field_texts[name] ~= 'null' and field_texts[name] or nil
  end
  if (state.epoch or '') == '' then
    texts.epoch = change_texts.id
  end
  texts.version = string.format('%.0f', version + 1)
  names[#names + 1] = 'updated_at'
  texts.updated_at = updated_at
end
texts.schema = texts.schema or '1'
texts.epoch = texts.epoch or '""'
texts.version = texts.version or '0'
texts.mode = texts.mode or '"off"'

local in_order = { 'schema', 'epoch', 'version', 'mode' }
for _, name in ipairs(names) do
  in_order[#in_order + 1] = name
end
local document = object_of(in_order, texts)
if #document > most_bytes then
  return { 'large', tostring(#document) }
end

-- From here on it is carried out. The first write is the one that fails if any does: no memory, a read-only replica.
if replaced then
  redis.call('RENAME', key, aside)
end
redis.call('SET', key, document)
redis.call('SET', sign, '', 'PX', kept_for)
if not change.is_renewal then
  -- Somebody who may write but not publish has made the change all the same; the others see it when they poll.
  redis.pcall('PUBLISH', channel, document)
end
return { replaced and 'replaced' or 'applied', document }
