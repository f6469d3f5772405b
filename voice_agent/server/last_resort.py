"""The last resort: a thread that ends the process when a drain itself hangs.

A child that swallows cancellation, or a C extension that never returns, can keep Trio from ending. Nothing inside
Trio can help then, so this is the one place with a plain thread.
"""

import os
import sys
import threading
from typing import Final

EXIT_SOFTWARE: Final = 70
"""EX_SOFTWARE of sysexits.h."""


def end_process_after(seconds: float) -> None:
    """End the process with exit code 70 unless it ends by itself within ``seconds``."""

    def end() -> None:
        sys.stderr.write(f"voice-agent: the shutdown did not end within {seconds:g} s; ending the process\n")
        sys.stderr.flush()
        os._exit(EXIT_SOFTWARE)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
