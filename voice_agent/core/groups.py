"""Exception groups: what a nursery wraps its errors in, looked through."""

from typing import Any


def alone(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return what the group holds where that is one exception: a shorter trace in the log."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
