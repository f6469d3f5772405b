"""What the commands exit with; the numbers are those of BSD's sysexits.h where it has one."""

from typing import Final

OK: Final = 0
NOT_FOUND: Final = 1
"""What was asked for does not exist, as with grep."""
USAGE: Final = 2
UNREADABLE_INPUT: Final = 66
"""EX_NOINPUT: a file, or the microphone, can't be read."""
SERVER_UNREACHABLE: Final = 69
"""EX_UNAVAILABLE: nobody answers, or the server refused the call."""
FAILED: Final = 70
"""EX_SOFTWARE: the call or the transcription began and ended in an error."""
CANT_CREATE: Final = 73
"""EX_CANTCREAT: a file can't be written."""
NOT_PERMITTED: Final = 77
"""EX_NOPERM: the key is missing, wrong, or may not do that."""
SETTINGS: Final = 78
"""EX_CONFIG: the settings or the models can't work."""
INTERRUPTED: Final = 130
"""128 + SIGINT: Ctrl-C."""
