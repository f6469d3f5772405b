"""What is known of the process itself: what runs here, and in how many threads."""

import platform
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

_TASKS: Final = Path("/proc/self/task")
"""Linux: one entry a thread (proc(5)), those of onnxruntime and of codecs too."""


def build() -> dict[str, str]:
    """Return the versions that a fault may come from."""
    return {
        "version": _version_of("voice-agent"),
        "python": platform.python_version(),
        "onnxruntime": _version_of("onnxruntime"),
    }


def count_threads() -> float:
    """Return how many threads the process has; elsewhere than on Linux, Python's own."""
    try:
        return float(sum(1 for _ in _TASKS.iterdir()))
    except OSError:
        return float(threading.active_count())


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
