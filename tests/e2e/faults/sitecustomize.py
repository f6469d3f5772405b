"""Faults for a server process that tests start with this folder on its path: files in its working directory ask for them.

``fail-recognition``: the speech model raises once; ``ignore-cancellation``: recognitions can't be cancelled while the
file is there. A server that is never asked is as any other.
"""

import importlib.abc
import importlib.util
import sys
from pathlib import Path
from typing import Any

FAIL, IGNORE = Path("fail-recognition"), Path("ignore-cancellation")


def break_batching(module: Any) -> None:
    """Put the faults between the engine and its queue."""
    import trio

    recognise, attempt = module.BatchedEngine.recognise, module.WorkQueue._call_model

    async def faulty(self: Any, request: Any) -> Any:
        while IGNORE.exists():
            with trio.CancelScope(shield=True):
                await trio.sleep(0.02)
        return await recognise(self, request)

    def failing(self: Any, batch: Any) -> Any:
        if FAIL.exists() and hasattr(batch[0].job, "utterance_key") and batch[0].job.utterance_key[1]:
            FAIL.unlink()
            raise RuntimeError("a fault that was asked for")
        return attempt(self, batch)

    module.BatchedEngine.recognise = faulty
    module.WorkQueue._call_model = failing


class Finder(importlib.abc.MetaPathFinder):
    """Waits for the one module, so that other interpreters with this path import nothing of ours."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "voice_agent.speech.batching":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            break_batching(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Finder())
