"""The embedded session with models of its own: what its block raises."""

import pytest
import trio

from voice_agent.embedding import open_session
from voice_agent.settings.schema import Settings


async def test_what_the_block_raises_comes_out_as_it_was_raised() -> None:
    """A program catches its own error by its class, with its cause, though models and workers have nurseries."""
    cause = ValueError("why")
    with pytest.raises(KeyError) as caught:
        async with open_session(settings=Settings()):
            raise KeyError("mine") from cause
    assert caught.value.__cause__ is cause


async def test_a_cancelled_block_is_just_cancelled() -> None:
    """A cancel scope around the whole ends it without an error."""
    with trio.CancelScope() as scope:
        async with open_session(settings=Settings()) as session:
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert session.record is not None
    assert session.record.reason == "cancelled"
