"""Units, so that a limit reads with its unit in sight: ``5 * SECONDS``, ``256 * KIB``."""

from typing import Final

SECONDS: Final = 1.0
MS: Final = 0.001 * SECONDS
MINUTES: Final = 60 * SECONDS
HOURS: Final = 60 * MINUTES
KIB: Final = 1024
MIB: Final = 1024 * KIB
