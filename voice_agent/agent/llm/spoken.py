"""What a model writes, as it may be spoken: without thoughts, markup, code and pictures. Pure."""

import re
from typing import Final

_OPENS: Final = "<think>"
_CLOSES: Final = "</think>"
_FENCE: Final = re.compile(r"^\s*(```|~~~)")

_RULES: Final = (
    (re.compile(r"!\[([^\]]*)\]\([^)\s]*\)"), r"\1"),
    (re.compile(r"\[([^\]]+)\]\([^)\s]*\)"), r"\1"),
    (re.compile(r"^\s*(?:#{1,6}\s+|>\s+|[-*+•]\s+)"), ""),
    (re.compile(r"^\s*(?:[-*_]\s*){3,}$"), ""),
    (re.compile(r"^\s*\|?(?:\s*:?-{2,}:?\s*\|?)+\s*$"), ""),
    (re.compile(r"^\s*\||\|\s*$"), ""),
    (re.compile(r"\s+\|\s+"), ", "),
    (re.compile(r"(\*{1,3}|_{2,3}|~~)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<!\w)_(?=\S)(.+?)(?<=\S)_(?!\w)"), r"\1"),
    (re.compile(r"`+([^`]*)`+"), r"\1"),
    # What is left of a pair whose other half stands in another sentence.
    (re.compile(r"\*(?=\S)|(?<=\S)\*|`"), ""),
    # Emoji and what joins them: So is "symbol, other"; those that are said (°, ©, ™) stand below U+2190.
    (re.compile("[\u2190-\u2bff\U0001f000-\U0001faff\ufe0f\u200d\u20e3]"), ""),
    (re.compile(r"\s+"), " "),
    (re.compile(r" (?=[.,;:!?](?:\s|$))"), ""),
)
"""What is replaced, in this order."""


class Spoken:
    """Takes the sentences of one reply as a model writes them, gives what there is to say of each."""

    def __init__(self) -> None:
        self._is_code = False

    def of(self, sentence: str) -> str:
        """Return a sentence in plain text; empty where it has nothing to say, as code has not."""
        if _FENCE.match(sentence):
            self._is_code = not self._is_code
            return ""
        if self._is_code:
            return ""
        for pattern, replacement in _RULES:
            sentence = pattern.sub(replacement, sentence)
        sentence = sentence.strip()
        return sentence if any(character.isalnum() for character in sentence) else ""


class ThoughtFilter:
    """Leaves out what stands between ``<think>`` and ``</think>``: models that think aloud write it before they answer."""

    def __init__(self) -> None:
        self._text = ""
        self._is_thinking = False

    def feed(self, text: str) -> str:
        """Take a piece; return what of it is meant for the caller. The beginning of a tag waits for the rest of it."""
        self._text += text
        told = ""
        while True:
            tag = _CLOSES if self._is_thinking else _OPENS
            before, found, behind = self._text.partition(tag)
            if not found:
                break
            told += "" if self._is_thinking else before
            self._text = behind
            self._is_thinking = not self._is_thinking
        kept = next(
            (size for size in range(len(tag) - 1, 0, -1) if self._text.endswith(tag[:size])),
            0,
        )
        if not self._is_thinking:
            told += self._text[: len(self._text) - kept]
        self._text = self._text[len(self._text) - kept :]
        return told

    def flush(self) -> str:
        """The text is over; return what waited."""
        rest, self._text = self._text, ""
        return "" if self._is_thinking else rest
