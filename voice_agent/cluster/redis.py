"""RedisDirectory: the nodes of many machines, in the Redis in which they keep their sessions.

A hash holds the beats, a sorted set when each was put, by the clock of Redis. Both keys are in one slot of a Redis
Cluster, and both die when nobody beats any more.
"""

from collections.abc import Sequence
from typing import Final

from voice_agent.cluster.beat import Beat, Sighting, dump_beat, load_beat
from voice_agent.session.store.redis import RedisStore

FORGOTTEN_AFTER_SECONDS: Final = 3600
KEYS: Final = ("{nodes}:beats", "{nodes}:times")

_NOW: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
"""
PUT_SCRIPT: Final = (
    _NOW
    + """
-- ARGV: node, beat, seconds after which all is forgotten.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
"""
)
BEATS_SCRIPT: Final = (
    _NOW
    + """
-- ARGV: the age at which a node is gone. Answers beat and age in milliseconds, of each node.
local gone = redis.call('ZRANGE', KEYS[2], '-inf', now - tonumber(ARGV[1]), 'BYSCORE')
for _, node in ipairs(gone) do
  redis.call('HDEL', KEYS[1], node)
  redis.call('ZREM', KEYS[2], node)
end
local answer = {}
local there = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for i = 1, #there, 2 do
  local beat = redis.call('HGET', KEYS[1], there[i])
  if beat then
    answer[#answer + 1] = beat
    answer[#answer + 1] = math.floor((now - tonumber(there[i + 1])) * 1000)
  end
end
return answer
"""
)
REMOVE_SCRIPT: Final = """
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""


class RedisDirectory:
    """A :class:`~voice_agent.cluster.directory.Directory`."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def put(self, beat: Beat) -> None:
        """As the protocol says."""
        arguments = (beat.node, dump_beat(beat), FORGOTTEN_AFTER_SECONDS)
        await self._store.run_script(PUT_SCRIPT, KEYS, arguments)

    async def beats(self, *, gone_seconds: float) -> Sequence[Sighting]:
        """As the protocol says."""
        answer = await self._store.run_script(BEATS_SCRIPT, KEYS, (gone_seconds,))
        seen = [
            Sighting(beat=load_beat(text), age_seconds=max(0, int(age)) / 1000)
            for text, age in zip(answer[::2], answer[1::2], strict=True)
        ]
        return tuple(sorted(seen, key=lambda sighting: sighting.beat.node))

    async def remove(self, node: str) -> None:
        """As the protocol says."""
        await self._store.run_script(REMOVE_SCRIPT, KEYS, (node,))
