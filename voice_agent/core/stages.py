"""The names of a call's stages: its children that do the work, and what its close may have to wait for."""

from typing import Final

STAGES: Final = ("receive audio", "receive text", "listen", "transcribe", "send", "let go")
"""In the order in which the words pass them."""

HEARING_STAGES: Final = ("listen", "transcribe")
"""Those that make words of what was received."""
