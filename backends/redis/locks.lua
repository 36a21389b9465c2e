-- SPDX-License-Identifier: MIT
-- The locks of all mounts in one Redis database. Each call is one atomic step, and the only writer
-- of these keys (P is the prefix, PLACE is LOCKSPACE/NAME, NODE one mount):
--   P:nodes          hash   NODE -> "BEAT LINK LEASE WORDS"
--   P:mine:NODE      set    the PLACEs where it has a record
--   P:lock:PLACE     hash   NODE -> "HELD WANTED TURN OP TRY SLOTS WANTS SIZE WORDS"; '#' -> the last TURN
--   P:pins:LOCKSPACE hash   NAME -> WORDS
--   P:token          the last fencing token; P:version the last change that was told
--   P:format         the version of all this, which mounts must share
--   P:heard          hash   NODE -> the run of the server in which it has said hello last
--   P:run, P:grace   which run of the server this is, and that locks may have been lost before it
-- Modes are the DLM's numbers, -1 is none, 6 is SLOTS of a semaphore of SIZE (held, and WANTS in all). Who has WORDS is shown to others; who has none only
-- keeps its lock, or has had it for a moment. Told by publish/subscribe, parts divided by NUL:
--   P:to:NODE        granted OP MODE LAST CONTENDED | refused OP | wanted PLACE
--                    | free PLACE (nobody wants it any more) | beat
--   P:DATABASE:shown VERSION PLACE PIN [NODE HELD WANTED WORDS]...: all that is shown of a lock
-- Channels are of the whole server, so those of each DATABASE have its number.
local prefix, node, link, database, verb = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local NONE, NL, PW, EX, SLOT = -1, 0, 4, 5, 6
local TOKENS = 1000
local FORMAT = '2'

local function key(kind, of) return prefix .. ':' .. kind .. (of and ':' .. of or '') end

local goes = { [0] = '1111111', '1111100', '1110000', '1101000', '1100000', '1000000', '1000001' }
local function compatible(a, b)
  return a == NONE or b == NONE or string.sub(goes[a], b + 1, b + 1) == '1'
end
local function covers(a, b)
  if a == SLOT or b == SLOT then return a == b or b <= NL or a == EX end
  return a == b or (a > b and not (a == 3 and b == 2))
end
-- Must who wants `b` wait behind who wants `a`? Slots wait for each other: they are counted.
local function against(a, b) return not compatible(a, b) or (a == SLOT and b == SLOT) end

-- Tokens are nanoseconds since 1970 or more, so that they grow even when all data was lost. They
-- are strings here: Lua's numbers do not hold them. Equal in length, they compare as text.
local function later(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end
local function last_token(least)
  local last = redis.call('GET', key('token')) or '0'
  if not later(least, last) then return last end
  redis.call('SET', key('token'), least)
  return least
end
-- The one before the first of TOKENS that nobody else gets.
local function take_tokens()
  local time = redis.call('TIME')
  local last = last_token(time[1] .. string.format('%06d', time[2]) .. '000')
  redis.call('INCRBY', key('token'), TOKENS)
  return last
end

local function picture(lock)
  local parts = {}
  for _, r in pairs(lock.records) do
    if r.words ~= '' then
      parts[#parts + 1] = table.concat({ r.node, r.held, r.wanted, r.words }, '\0')
    end
  end
  table.sort(parts)
  return table.concat(parts, '\0')
end

-- Whose locks are waited for: what others want, by mode, tells.
local function wanted_nodes(lock)
  local counts, wanted = {}, {}
  for _, r in pairs(lock.records) do
    if r.wanted ~= NONE then counts[r.wanted] = (counts[r.wanted] or 0) + 1 end
  end
  if not next(counts) then return wanted end
  for _, r in pairs(lock.records) do
    for m, count in pairs(counts) do
      if count > (r.wanted == m and 1 or 0) and against(r.held, m) then wanted[r.node] = true end
    end
  end
  return wanted
end

-- Where the key is none of ours nobody holds, and nothing is granted (`foreign`).
local function load(place)
  local lock = { place = place, records = {}, turns = 0 }
  local all = redis.pcall('HGETALL', key('lock', place))
  if all.err then
    if not string.find(all.err, 'WRONGTYPE', 1, true) then error(all.err) end
    lock.foreign, all = true, {}
  end
  for i = 1, #all, 2 do
    if all[i] == '#' then
      lock.turns = tonumber(all[i + 1])
    else
      local held, wanted, turn, op, try, slots, wants, size, words =
        string.match(all[i + 1], '^(%-?%d) (%-?%d) (%d+) (%d+) (%d) (%d+) (%d+) (%d+) (.*)$')
      if held then lock.records[all[i]] = { node = all[i], held = tonumber(held), wanted = tonumber(wanted),
        turn = tonumber(turn), op = op, try = try == '1', slots = tonumber(slots),
        wants = tonumber(wants), size = tonumber(size), words = words } end
    end
  end
  lock.shown = picture(lock)
  lock.wanted = wanted_nodes(lock)
  return lock
end

local function save(lock, r)
  if r.held == NONE and r.wanted == NONE then
    redis.call('HDEL', key('lock', lock.place), r.node)
    redis.call('SREM', key('mine', r.node), lock.place)
    lock.records[r.node] = nil
    return
  end
  if not lock.records[r.node] then redis.call('SADD', key('mine', r.node), lock.place) end
  lock.records[r.node] = r
  redis.call('HSET', key('lock', lock.place), r.node, string.format('%d %d %d %s %d %d %d %d %s',
    r.held, r.wanted, r.turn, r.op, r.try and 1 or 0, r.slots, r.wants, r.size, r.words))
end

local function message(lock, shown)
  local space, name = string.match(lock.place, '^([^/]*)/(.*)$')
  local pin = redis.call('HGET', key('pins', space), name) or ''
  return lock.place .. '\0' .. pin .. (shown ~= '' and '\0' .. shown or '')
end

local function tell(lock)
  local version = redis.call('INCR', key('version'))
  redis.call('PUBLISH', key(database, 'shown'), version .. '\0' .. message(lock, picture(lock)))
end

local function tell_node(who, ...) redis.call('PUBLISH', key('to', who), table.concat({ ... }, '\0')) end

local function finish(lock)
  if lock.foreign then return end
  if not next(lock.records) then redis.call('DEL', key('lock', lock.place)) end
  if picture(lock) ~= lock.shown then tell(lock) end
  if not next(lock.wanted) then return end
  local wanted = wanted_nodes(lock)
  for who in pairs(lock.wanted) do
    local r = lock.records[who]
    if r and r.held ~= NONE and not wanted[who] then tell_node(who, 'free', lock.place) end
  end
end

-- What `r` has from now on.
local function hold(r, mode, slots)
  r.held, r.wanted, r.turn, r.try = mode, NONE, 0, false
  r.slots, r.wants = mode == SLOT and slots or 0, 0
end

-- Would `mode` go with what the others hold?
local function is_free(lock, r, mode, wants)
  local used = wants
  for _, o in pairs(lock.records) do
    if o.node ~= r.node then
      if not compatible(o.held, mode) then return false end
      used = used + o.slots
    end
  end
  return mode ~= SLOT or used <= r.size
end

-- Do others use, or wait for, slots of another size?
local function other_size(lock, size)
  for _, o in pairs(lock.records) do
    if o.node ~= node and o.slots + o.wants > 0 and o.size ~= size then return true end
  end
  return false
end

-- Conversions first, each in the order in which they came. New requests wait behind those that
-- they do not go with; a conversion behind nobody, for the one before it may wait for what it holds.
local function waiting(lock)
  local list = {}
  for _, r in pairs(lock.records) do
    if r.wanted ~= NONE then list[#list + 1] = r end
  end
  table.sort(list, function(a, b)
    local ca, cb = a.held > NL, b.held > NL
    if ca ~= cb then return ca end
    return a.turn < b.turn
  end)
  return list
end

local function any_against(modes, mode)
  for m in pairs(modes) do
    if against(m, mode) then return true end
  end
  return false
end

local function against_others(counts, used, r)
  for m, count in pairs(counts) do
    if count > (r.held == m and 1 or 0) and not compatible(m, r.wanted) then return true end
  end
  return r.wanted == SLOT and used - r.slots + r.wants > r.size
end

-- Does a conversion that `mode` would wait for wait, in the end, for what `r` holds?
local function is_deadlock(lock, r, mode)
  local open, seen = { mode }, {}
  while #open > 0 do
    local wanted = table.remove(open)
    for _, o in pairs(lock.records) do
      if o.node ~= r.node and o.held > NL and o.wanted ~= NONE and not seen[o.node] and
        not compatible(wanted, o.held) then
        if not compatible(o.wanted, r.held) then return true end
        seen[o.node] = true
        open[#open + 1] = o.wanted
      end
    end
  end
  return false
end

-- Grants all whose turn it is.
local function advance(lock)
  local list = waiting(lock)
  if #list == 0 or redis.call('EXISTS', key('grace')) == 1 then return end
  local counts, used, ahead, granted = {}, 0, {}, {}
  for _, r in pairs(lock.records) do
    used = used + r.slots
    if r.held ~= NONE then counts[r.held] = (counts[r.held] or 0) + 1 end
  end
  for _, r in ipairs(list) do
    local behind = r.held <= NL and any_against(ahead, r.wanted)
    if behind or against_others(counts, used, r) then
      ahead[r.wanted] = true
    else
      if r.held ~= NONE then counts[r.held] = counts[r.held] - 1 end
      used = used - r.slots
      hold(r, r.wanted, r.wants)
      used = used + r.slots
      counts[r.held] = (counts[r.held] or 0) + 1
      granted[#granted + 1] = r
    end
  end
  for _, r in ipairs(granted) do
    save(lock, r)
    tell_node(r.node, 'granted', r.op, r.held,
      (r.held == PW or r.held == EX) and take_tokens() or '',
      any_against(ahead, r.held) and 1 or 0)
  end
end

-- Who would not wait waits until those in its way have said that they do not only keep it.
local function refuse_tries(lock)
  local refused = false
  for _, r in ipairs(waiting(lock)) do
    local answer = false
    for _, o in pairs(lock.records) do
      if o.node ~= r.node and o.words ~= '' and against(o.held, r.wanted) then answer = true end
    end
    if r.try and answer then
      r.wanted, r.wants, r.turn, r.try, refused = NONE, 0, 0, false, true
      save(lock, r)
      tell_node(r.node, 'refused', r.op)
    end
  end
  if refused then advance(lock) end
end

local function end_record(place, who)
  local lock = load(place)
  local r = lock.records[who]
  if not r then return end
  r.held, r.wanted = NONE, NONE
  save(lock, r)
  advance(lock)
  finish(lock)
end

local function bury(who)
  for _, place in ipairs(redis.call('SMEMBERS', key('mine', who))) do end_record(place, who) end
  redis.call('DEL', key('mine', who))
  redis.call('HDEL', key('heard'), who)
  redis.call('HDEL', key('nodes'), who)
end

local function parts_of(member) return string.match(member, '^(%d+) (%d+) (%d+) (.*)$') end

local verbs = {}

-- RUN YOUNG LEASE WORDS HAD -> known|new GRACE [PLACE HELD WANTED OP SLOTS]...
-- After a loss of data nothing is granted before whoever had a lock has resumed it, or knows that
-- it is lost: for the longest lease of all (GRACE is "RUN LEASE").
function verbs.hello(run, young, lease, words, had)
  local known = redis.call('HGET', key('nodes'), node)
  if (redis.call('GET', key('format')) or FORMAT) ~= FORMAT then
    return redis.error_reply('ERR mounts of another version of lockfs use this prefix')
  end
  redis.call('SET', key('format'), FORMAT)
  local before = redis.call('GET', key('run'))
  local grace = redis.call('GET', key('grace'))
  if before ~= run then redis.call('SET', key('run'), run) end
  local restarted = before ~= run and (before or young == '1')
  if restarted or (had == '1' and not known) then grace = run .. ' 0' end
  if grace and tonumber(string.match(grace, ' (%d+)$')) < tonumber(lease) then
    grace = run .. ' ' .. lease
    redis.call('SET', key('grace'), grace)
  end
  local beat = known and parts_of(known) or '0'
  redis.call('HSET', key('nodes'), node,
    table.concat({ string.format('%d', beat + 1), link, lease, words }, ' '))
  redis.call('HSET', key('heard'), node, run)
  local answer = { known and 'known' or 'new', grace or '' }
  for _, place in ipairs(redis.call('SMEMBERS', key('mine', node))) do
    local lock = load(place)
    local r = lock.records[node]
    if r then
      if lock.wanted[node] then tell_node(node, 'wanted', place) end  -- It may have missed that.
      for _, part in ipairs({ place, tostring(r.held), tostring(r.wanted), r.op,
        tostring(r.slots) }) do
        answer[#answer + 1] = part
      end
    end
  end
  return answer
end

-- Those who waited meanwhile go on.
local function end_grace()
  redis.call('DEL', key('grace'))
  for _, who in ipairs(redis.call('HKEYS', key('nodes'))) do
    for _, place in ipairs(redis.call('SMEMBERS', key('mine', who))) do
      local lock = load(place)
      advance(lock)
      finish(lock)
    end
  end
end

-- GRACE [NODE BEAT]... -> ok GRACE [NODE BEAT LEASE]...: what is named has not moved for its lease.
function verbs.beat(over, ...)
  if over ~= '' and redis.call('GET', key('grace')) == over then end_grace() end
  local still = { ... }
  for i = 1, #still, 2 do
    local member = redis.call('HGET', key('nodes'), still[i])
    if member and parts_of(member) == still[i + 1] and still[i] ~= node then bury(still[i]) end
  end
  local beat, _, lease, words = parts_of(redis.call('HGET', key('nodes'), node))
  redis.call('HSET', key('nodes'), node,
    table.concat({ string.format('%d', beat + 1), link, lease, words }, ' '))
  tell_node(node, 'beat')  -- So that it knows that it hears what it is told.
  local answer = { 'ok', redis.call('GET', key('grace')) or '' }
  local all = redis.call('HGETALL', key('nodes'))
  for i = 1, #all, 2 do
    local b, _, l = parts_of(all[i + 1])
    if all[i] ~= node then
      for _, part in ipairs({ all[i], b, l }) do answer[#answer + 1] = part end
    end
  end
  return answer
end

function verbs.bye(who) bury(who) return { 'ok' } end

local function enqueue(lock, r, mode, wants, try)
  lock.turns = lock.turns + 1
  redis.call('HSET', key('lock', lock.place), '#', lock.turns)
  r.wanted, r.wants, r.turn, r.try = mode, wants, lock.turns, try
  save(lock, r)
  for _, o in pairs(lock.records) do
    if o.node ~= node and against(o.held, mode) then tell_node(o.node, 'wanted', lock.place) end
  end
  return { 'queued' }
end

local function new_record()
  return { node = node, held = NONE, wanted = NONE, turn = 0, op = '0', try = false, slots = 0,
    wants = 0, size = 0, words = '' }
end

-- PLACE MODE NOW OP SLOTS SIZE
--   -> granted MODE LAST CONTENDED | queued | busy | deadlock | grace | size | foreign KEY
-- The same OP again asks for what became of it.
function verbs.acquire(place, mode, now, op, slots, size)
  mode, slots, size = tonumber(mode), tonumber(slots), tonumber(size)
  local lock = load(place)
  if lock.foreign then return { 'foreign', key('lock', place) } end
  local r = lock.records[node] or new_record()
  if r.wanted ~= NONE and r.op == op then return { 'queued' } end
  r.op = op
  if r.wanted ~= NONE then
    r.wanted, r.wants = NONE, 0
    save(lock, r)
    advance(lock)
    finish(lock)
    lock = load(place)
    r = lock.records[node] or new_record()
    r.op = op
  end
  if mode == SLOT then
    if other_size(lock, size) then return { 'size' } end
    r.size = size
  end
  local had = r.held
  local conversion = had > NL
  local wanted, in_its_way, ahead = {}, false, false
  for _, o in ipairs(waiting(lock)) do
    if o.node ~= node then
      wanted[o.wanted] = true
      if not conversion and against(o.wanted, mode) then ahead = true end
    end
  end
  if not covers(had, mode) or (had == SLOT and slots > r.slots) then
    if redis.call('EXISTS', key('grace')) == 1 then return { 'grace' } end
    for _, o in pairs(lock.records) do
      if o.node ~= node and o.words ~= '' and against(o.held, mode) then in_its_way = true end
    end
    if ahead or not is_free(lock, r, mode, slots) then
      if now == '1' and (ahead or in_its_way) then return { 'busy' } end
      if now == '0' and conversion and is_deadlock(lock, r, mode) then return { 'deadlock' } end
      local answer = enqueue(lock, r, mode, slots, now == '1')
      finish(lock)
      return answer
    end
  end
  local less = had ~= mode or slots < r.slots
  hold(r, mode, slots)
  local last = (mode == PW or mode == EX) and take_tokens() or ''
  save(lock, r)
  if less then advance(lock) end
  finish(lock)
  return { 'granted', tostring(mode), last, any_against(wanted, mode) and '1' or '0' }
end

-- PLACE OP -> interrupted | late: a message tells what became of it
function verbs.cancel(place, op)
  local lock = load(place)
  local r = lock.records[node]
  if not r then return { 'interrupted' } end
  if r.wanted == NONE or r.op ~= op then return { 'late' } end
  r.wanted, r.wants, r.turn, r.try = NONE, 0, 0, false
  save(lock, r)
  advance(lock)
  finish(lock)
  return { 'interrupted' }
end

function verbs.release(place)
  end_record(place, node)
  return { 'ok' }
end

-- PLACE WORDS: who holds or waits; no words: it is only kept.
function verbs.show(place, words)
  local lock = load(place)
  local r = lock.records[node]
  if not r then return { 'missing' } end
  r.words = words
  save(lock, r)
  if words ~= '' then refuse_tries(lock) end
  finish(lock)
  return { 'ok' }
end

-- A server may come back with old data. Who resumes was granted its lock later than that, so what is
-- in its way had ended before. But who has said hello in this run of the server knows that itself, and
-- may have been granted it since. Who says hello later finds its record gone, and resumes or loses.
local function end_unheard(lock, r, mode)
  local run = redis.call('GET', key('run'))
  for who, o in pairs(lock.records) do
    local heard = redis.call('HGET', key('heard'), who) == run
    if who ~= r.node and not heard and against(o.held, mode) then
      o.held, o.wanted = NONE, NONE
      save(lock, o)
    end
  end
end

-- PLACE MODE LAST OP WORDS SLOTS SIZE: held before the loss of data -> held | lost
function verbs.resume(place, mode, last, op, words, slots, size)
  mode, slots, size = tonumber(mode), tonumber(slots), tonumber(size)
  local lock = load(place)
  local r = lock.records[node] or new_record()
  if covers(r.held, mode) and r.slots >= slots then return { 'held' } end
  if mode == SLOT then r.size = size end
  if lock.foreign or redis.call('EXISTS', key('grace')) == 0 then return { 'lost' } end
  local function fits()
    return is_free(lock, r, mode, slots) and not (mode == SLOT and other_size(lock, size))
  end
  if not fits() then end_unheard(lock, r, mode) end
  if not fits() then
    finish(lock)
    return { 'lost' }
  end
  if last ~= '' then last_token(last) end
  hold(r, mode, slots)
  r.op, r.words = op, words
  save(lock, r)
  finish(lock)
  return { 'held' }
end

-- LOCKSPACE -> VERSION PLACE...: what is pinned, held or waited for. To look at all of that in one step
-- would keep the server from everybody else.
function verbs.list(space)
  local seen, answer = {}, { redis.call('GET', key('version')) or '0' }
  local function add(place)
    if seen[place] or string.sub(place, 1, #space + 1) ~= space .. '/' then return end
    seen[place] = true
    answer[#answer + 1] = place
  end
  for _, name in ipairs(redis.call('HKEYS', key('pins', space))) do add(space .. '/' .. name) end
  for _, who in ipairs(redis.call('HKEYS', key('nodes'))) do
    for _, place in ipairs(redis.call('SMEMBERS', key('mine', who))) do add(place) end
  end
  return answer
end

-- PLACE... -> what is shown of each.
function verbs.look(...)
  local answer = {}
  for i, place in ipairs({ ... }) do
    local lock = load(place)
    answer[i] = message(lock, lock.shown)
  end
  return answer
end

local function pinned(space, name)
  tell(load(space .. '/' .. name))
  return { 'ok' }
end

-- LOCKSPACE NAME WORDS FRESH -> ok | exists
function verbs.pin(space, name, words, fresh)
  local had = redis.call('HGET', key('pins', space), name)
  if had and fresh == '1' then return { 'exists' } end
  redis.call('HSET', key('pins', space), name, words)
  return pinned(space, name)
end

-- LOCKSPACE NAME -> ok | missing
function verbs.unpin(space, name)
  if redis.call('HDEL', key('pins', space), name) == 0 then return { 'missing' } end
  return pinned(space, name)
end

local member = redis.call('HGET', key('nodes'), node)
local _, current = parts_of(member or '')
-- What an ended connection sent, or a node that is buried: nothing of it counts any more.
if verb ~= 'hello' and current ~= link then return { 'stale' } end
return verbs[verb](unpack(ARGV, 6))
