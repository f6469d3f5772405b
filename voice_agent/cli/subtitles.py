"""SubRip (SRT) and WebVTT from finals: pure text, no files.

Formats: WebVTT is https://www.w3.org/TR/webvtt1/ (sections 4.1 and 6.4); SRT has no standard, this follows what
players agree on (numbered cues, comma before the milliseconds, blank line between).
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from voice_agent.core.transcripts import TranscriptResult, Word

MAX_LINE_CHARACTERS: Final = 42
"""What broadcasters allow (BBC and Netflix style guides: 37 to 42)."""
MAX_CUE_LINES: Final = 2

_MS_PER_SECOND: Final = 1000
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@attrs.frozen
class Cue:
    """What stands on the screen at once: ``lines`` from ``start_ms`` to ``end_ms`` of the recording."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def make_cues(finals: Iterable[TranscriptResult]) -> list[Cue]:
    """Cut finals into cues of at most two lines of 42 characters.

    A final that needs several cues shares its time out by its words where the engine placed them, else by the
    number of characters. Cues never overlap, never run backwards, and last at least a millisecond.
    """
    cues: list[Cue] = []
    free_from_ms = 0
    for final in finals:
        lines = textwrap.wrap(_one_line(final.text), MAX_LINE_CHARACTERS, break_on_hyphens=False)
        groups = [tuple(lines[at : at + MAX_CUE_LINES]) for at in range(0, len(lines), MAX_CUE_LINES)]
        for (start, end), group in zip(_spans(final, groups), groups, strict=True):
            start_ms = max(_to_ms(start), free_from_ms)
            free_from_ms = max(_to_ms(end), start_ms + 1)
            cues.append(Cue(start_ms, free_from_ms, group))
    return cues


def to_srt(finals: Iterable[TranscriptResult]) -> str:
    """Return the finals as SubRip."""
    blocks = (
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{_body(cue, _srt_text)}\n"
        for number, cue in enumerate(make_cues(finals), 1)
    )
    return "\n".join(blocks)


def to_vtt(finals: Iterable[TranscriptResult]) -> str:
    """Return the finals as WebVTT."""
    blocks = (
        f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{_body(cue, _vtt_text)}\n"
        for cue in make_cues(finals)
    )
    return "\n".join(["WEBVTT\n", *blocks])


def _spans(final: TranscriptResult, groups: Sequence[tuple[str, ...]]) -> list[tuple[float, float]]:
    counts = [sum(len(line.split()) for line in group) for group in groups]
    if final.words and len(final.words) == sum(counts):
        return _spans_of_words(final.words, counts)
    sizes = [sum(map(len, group)) for group in groups]
    total = sum(sizes)
    spans: list[tuple[float, float]] = []
    before = 0
    for size in sizes:
        start, end = (
            final.start + (final.end - final.start) * share / total for share in (before, before + size)
        )
        spans.append((start, end))
        before += size
    return spans


def _spans_of_words(words: Sequence[Word], counts: Sequence[int]) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    first = 0
    for count in counts:
        spans.append((words[first].start, words[first + count - 1].end))
        first += count
    return spans


def _to_ms(seconds: float) -> int:
    return max(0, round(seconds * _MS_PER_SECOND))


def _clock(total_ms: int, separator: str) -> str:
    """Hours (two digits or more), minutes, seconds and milliseconds, counted in whole milliseconds."""
    total_seconds, ms = divmod(total_ms, _MS_PER_SECOND)
    total_minutes, seconds = divmod(total_seconds, 60)
    hours, minutes = divmod(total_minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{separator}{ms:03}"


def _one_line(text: str) -> str:
    """One line without control characters: a blank line would end the cue."""
    return " ".join(_CONTROL.sub(" ", text).split())


def _body(cue: Cue, escape: Callable[[str], str]) -> str:
    return "\n".join(map(escape, cue.lines))


def _srt_text(text: str) -> str:
    """SRT has no escapes; only its own arrow could be taken for a cue's times."""
    return text.replace("-->", "->")


def _vtt_text(text: str) -> str:
    """WebVTT, section 4.2.2: these three begin a tag or a character reference; escaping '>' also breaks '-->'."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
