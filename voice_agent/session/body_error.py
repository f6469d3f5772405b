"""BodyError: what a block raises, brought out of the nurseries around it as it was raised.

A nursery wraps whatever comes out of it in a group. Somebody who writes ``async with open_x()`` does not see that
there are nurseries inside, and wants to catch their own error by its own class, with its cause.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class BodyError:
    """Used twice: :meth:`unwrapped` outside of the nurseries, :meth:`noted` directly around the ``yield``."""

    def __init__(self) -> None:
        self._error: BaseException | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Remember what the block raises."""
        try:
            yield
        except BaseException as error:
            self._error = error
            raise

    @contextmanager
    def unwrapped(self) -> Iterator[None]:
        """Raise the block's error itself where it is alone in its groups; other groups as they are."""
        try:
            yield
        except BaseExceptionGroup as group:
            if not self._is_alone_in(group):
                raise
        else:
            return
        # Outside of the handler, so that the group does not become the error's context.
        assert self._error is not None  # noqa: S101 (it was found in the group)
        raise self._error

    def _is_alone_in(self, group: BaseException) -> bool:
        # By what is in them: a cancel scope makes new groups of those that pass through it.
        return self._error is not None and list(_leaves(group)) == list(_leaves(self._error))


def _leaves(error: BaseException) -> Iterator[int]:
    """Identities of the exceptions that are no groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield id(error)
