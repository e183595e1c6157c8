"""What Redis must do in one step for callers' limits: Lua, with Redis 7.2's commands only.

Keys of one script are one caller's, so a script runs on one node of a cluster as well. Times are
those of Redis's own clock, in milliseconds. What a worker counted stands as two numbers: one that
grows each time that it says so, and the tokens.
"""

from app.events.redis_link import Script

_USED = """
local function used(key, worker, own)
  local total, said = tonumber(own), redis.call('HGETALL', key)
  for i = 1, #said, 2 do
    if said[i] ~= worker then total = total + tonumber(string.match(said[i + 1], '%S+$')) end
  end
  return total
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: slots, tokens of today. ARGV: our worker, its own tokens, run id, runs at once, tokens a day
# (-1 for either: no limit), milliseconds that a lease lasts, milliseconds that the key lives, 1 to
# drop leases that are over. Answers what there is too much of, or that it is taken.
TAKE = Script(f"""{_USED}
local per_day, at_once = tonumber(ARGV[5]), tonumber(ARGV[4])
if per_day >= 0 and used(KEYS[2], ARGV[1], ARGV[2]) >= per_day then return 'tokens' end
if at_once < 0 then return 'taken' end
if ARGV[8] == '1' then redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now) end
if redis.call('ZCARD', KEYS[1]) >= at_once then return 'runs' end
redis.call('ZADD', KEYS[1], now + ARGV[6], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
return 'taken'
""")

# KEYS: slots. ARGV: milliseconds that a lease lasts, milliseconds that the key lives, run ids.
HOLD = Script(f"""{_USED}
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""")

# KEYS: tokens of a day. ARGV: worker, a number that grows, its tokens, milliseconds to live. What
# comes late, because it hung in a connection that we gave up, changes nothing.
SAY = Script("""
local said = redis.call('HGET', KEYS[1], ARGV[1])
if said and tonumber(string.match(said, '^%S+')) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
""")

# KEYS: slots, tokens of today. ARGV: our worker, its own tokens. Answers leases and tokens.
LOOK = Script(f"""{_USED}
return {{redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf'), used(KEYS[2], ARGV[1], ARGV[2])}}
""")
