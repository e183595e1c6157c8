"""What Redis must do in one step: Lua, with commands of Redis 7.2 and Valkey only.

Keys of one script are one run's, so a script runs on one node of a cluster as well. Times are those
of Redis's own clock, in milliseconds: workers' clocks need not agree.
"""

from app.events.redis_link import Script

NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: leases. ARGV: 1 to make leases, 0 to renew those that are there; milliseconds; run ids.
# Answers the ids that have no lease.
LEASE = Script(f"""{NOW}
local missing = {{}}
for i = 3, #ARGV do
  if ARGV[1] == '1' or redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[i])
  else
    missing[#missing + 1] = ARGV[i]
  end
end
return missing
""")

# KEYS: leases. ARGV: at most so many. Answers the runs whose lease is over.
OVERDUE = Script(f"""{NOW}
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
""")

# KEYS: run. ARGV: record, epoch, worker, milliseconds to live. Answers 1; 0 where it is there.
OPEN = Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[1], 'epoch', ARGV[2], 'base', ARGV[2],
           'last', 0, 'writer', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
""")

# KEYS: run, log. ARGV: channel, epoch, first number, last number (below the first: only look),
# batch, milliseconds to live ('' for those of before), 1 where the batch is the ending, and for who
# only looks: what other workers asked with, to be noted where all that comes before is stored.
# Answers {how, last number}: stored; doubled: it was stored before; refused: what comes before it
# is not stored; fenced: another worker has ended the run; gone: there is no such run.
APPEND = Script("""
local run = redis.call('HMGET', KEYS[1], 'epoch', 'last')
if not run[1] then return {'gone', 0} end
local last = tonumber(run[2])
if run[1] ~= ARGV[2] then return {'fenced', last} end
local first = tonumber(ARGV[3])
if last >= first then return {'doubled', last} end
if last < first - 1 then return {'refused', last} end
if tonumber(ARGV[4]) < first then
  if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'asked', ARGV[8]) end
  return {'stored', last}
end
redis.call('XADD', KEYS[2], ARGV[2] .. '-' .. ARGV[4], 'b', ARGV[5])
redis.call('HSET', KEYS[1], 'last', ARGV[4])
if ARGV[7] == '1' then redis.call('HSET', KEYS[1], 'ending', ARGV[5]) end
if ARGV[6] ~= '' then
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
end
redis.call('PUBLISH', ARGV[1], ARGV[5])
return {'stored', tonumber(ARGV[4])}
""")

# KEYS: run, log, and its idempotency key if it has one, which must be free once the ending is read.
# ARGV: channel, epoch and last number as they were seen, new epoch, last number of the ending, its
# batch, milliseconds to live, run id. Answers 1; 0 where the run has moved on since.
TAKE_OVER = Script("""
local run = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'ending')
if run[1] ~= ARGV[2] or run[2] ~= ARGV[3] or run[3] then return 0 end
if KEYS[3] and redis.call('GET', KEYS[3]) == ARGV[8] then redis.call('DEL', KEYS[3]) end
redis.call('XADD', KEYS[2], ARGV[4] .. '-' .. ARGV[5], 'b', ARGV[6])
redis.call('HSET', KEYS[1], 'epoch', ARGV[4], 'last', ARGV[5], 'ending', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
redis.call('PUBLISH', ARGV[1], ARGV[6])
return 1
""")

# KEYS: one. ARGV: value, milliseconds to live, a value that does not count. Answers whose it is.
CLAIM = Script("""
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[3] then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
""")

# KEYS: one. ARGV: value, milliseconds to live from now on, 0: none at all. Nothing where another
# value stands.
KEEP = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
""")
