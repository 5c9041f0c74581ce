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

local most_version = 9007199254740991 -- 2^53 - 1, as in state.py

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

-- Puts members into an object; a new one goes to its end.
local function put(names, texts, put_names, put_texts)
  for _, name in ipairs(put_names) do
    if not texts[name] then
      -- Where it stood before it was dropped, there is nothing to write any more.
      for place, other in ipairs(names) do
        if other == name then
          table.remove(names, place)
          break
        end
      end
      names[#names + 1] = name
    end
    texts[name] = put_texts[name]
  end
end

-- The text of an object that is put over a former one, whose other members stay; a member that is null goes.
local function merged(former, new)
  local names, texts = members(former or '{}')
  local new_names, new_texts = members(new)
  for _, name in ipairs(new_names) do
    if new_texts[name] == 'null' then
      new_texts[name] = nil
    end
  end
  put(names, texts, new_names, new_texts)
  return object_of(names, texts)
end

-- Makes an object a member of the document, or leaves an empty one out.
local function set_object(document_names, document_texts, name, names, texts)
  if not document_texts[name] then
    document_names[#document_names + 1] = name
  end
  document_texts[name] = next(texts) and object_of(names, texts) or nil
end

-- A JSON string that is a time in UTC, without what its end says, so that an earlier one is less.
local function comparable(time)
  return sub(time, 2, -3)
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
local version, holds, windows = state.version or 0, state.holds or {}, state.windows or {}
if type(version) ~= 'number' or type(holds) ~= 'table' or type(windows) ~= 'table' then
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
for _, id in ipairs(change.required_windows) do
  if not windows[id] then
    local known = { 'no window' }
    for other in pairs(windows) do
      known[#known + 1] = other
    end
    return known
  end
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
  put_texts[id] = merged(hold_texts[id], put_texts[id])
  if change.ttl ~= cjson.null then
    put_texts[id] = merged(put_texts[id], '{"expires_at":' .. string.format('%.0f', now + change.ttl) .. '}')
  end
end
put(ids, hold_texts, put_ids, put_texts)
set_object(names, texts, 'holds', ids, hold_texts)

if next(change.put_windows) or next(change.drop_windows) or next(change.ended_windows) then
  local window_ids, window_texts = members(texts.windows or '{}')
  for _, id in ipairs(change.drop_windows) do
    window_texts[id] = nil
  end
  local ended_ids, ended = members(change_texts.ended_windows)
  for _, id in ipairs(ended_ids) do
    if window_texts[id] then
      local window_names, texts_of_window = members(window_texts[id])
      local before = texts_of_window.ended
      if not before or before == 'null' or comparable(before) < comparable(ended[id]) then
        put(window_names, texts_of_window, { 'ended' }, { ended = ended[id] })
      end
      window_texts[id] = object_of(window_names, texts_of_window)
    end
  end
  local new_ids, new_texts = members(change_texts.put_windows)
  for _, id in ipairs(new_ids) do
    new_texts[id] = merged(window_texts[id], new_texts[id])
  end
  put(window_ids, window_texts, new_ids, new_texts)
  set_object(names, texts, 'windows', window_ids, window_texts)
end

if not change.is_renewal then
  local field_names, field_texts = members(change_texts.fields)
  local ends = texts['until'] or 'null'
  local goes_on = (state.mode or 'off') ~= 'off' and (ends == 'null' or comparable(updated_at) < comparable(ends))
  if goes_on and (field_texts.since or 'null') ~= 'null' then
    field_texts.since = texts.since or 'null' -- a maintenance that is corrected began when it began
  end
  for _, name in ipairs(field_names) do
    names[#names + 1] = name
    texts[name] = field_texts[name] ~= 'null' and field_texts[name] or nil
  end
  if (state.epoch or '') == '' or version >= most_version then
    texts.epoch = change_texts.id
    version = version < most_version and version or 0
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
