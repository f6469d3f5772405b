"""From tokens to sentences that can be spoken: the first as early as possible, none too long. Pure.

Own code: the splitters that exist want the whole text, and a caller waits for the first sentence. What is written so far is
looked at from the left, one possible end after the other; each is decided by what stands before it and one character behind it,
so that it doesn't matter how the text was cut into tokens.
"""

import re
from typing import Final

MAX_SENTENCE_CHARS: Final = 280
"""What has no end by then is cut behind a clause, or a word: some twenty seconds of speech."""
FIRST_CLAUSE_CHARS: Final = 40
"""The first thing said may be a clause, if it has so many characters: the voice begins while the rest is written."""

_ABBREVIATIONS: Final = frozenset({
    "mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "vs", "e.g", "i.e", "cf", "approx", "dept", "est", "fig", "inc", "ltd",
    "co", "corp", "vol", "smt", "shri", "rs",
})  # fmt: skip
"""Behind these a full stop ends nothing."""
_BEFORE_NUMBERS: Final = frozenset({"no", "nos", "p", "pp", "sec", "ext", "tel", "art"})
"""Behind these it ends nothing if a number follows: "No. 5", but "No. I can't"."""
_MAYBE: Final = frozenset({"etc", "a.m", "p.m", "u.s", "u.k", "b.sc", "ph.d"})
"""Behind these it ends a sentence only if the next one begins with a capital."""

_CLOSERS: Final = "\"'\u201d\u2019\u00bb)]*_`"
_FULL_WIDTH: Final = "\u3002\uff01\uff1f\u0964\u0965"
"""Sentence ends of Chinese, Japanese and the scripts of India; no blank follows them."""
_CLOSING: Final = rf"[{re.escape(_CLOSERS)}\u300d\u300f\uff09]"
_POSSIBLE_END: Final = re.compile(
    rf"\n|[.!?…]+[{re.escape(_CLOSERS)}]*(?=\s)|[{_FULL_WIDTH}]{_CLOSING}*(?=(?!{_CLOSING})(?s:.))"
)
_CLAUSE: Final = re.compile(r"[,;:—–](?=\s)")  # noqa: RUF001 - the dashes are meant
_LAST_WORD: Final = re.compile(r"([\w.]+)$")
_LIST_NUMBER: Final = re.compile(r"^[*_]*\d{1,3}$")
_INITIAL: Final = re.compile(r"(?:^|\s)[A-HJ-Z]$")
"""As in "J. Smith"; "I" is a word."""


def is_whole(sentence: str) -> bool:
    """Whether a sentence has come to its end."""
    return sentence.rstrip(_CLOSERS)[-1:] in {*".!?…", *_FULL_WIDTH}


class SentenceSplitter:
    """Takes text as it comes, gives sentences as soon as they are whole."""

    def __init__(self) -> None:
        self._text = ""
        self._is_first = True

    def feed(self, text: str) -> list[str]:
        """Take a piece; return the sentences that are whole now, without blanks around them."""
        self._text += text
        return self._take(is_end=False)

    def flush(self) -> list[str]:
        """The text is over; return what is left."""
        sentences = self._take(is_end=True)
        rest, self._text = self._text.strip(), ""
        return [*sentences, rest] if rest else sentences

    def _take(self, *, is_end: bool) -> list[str]:
        sentences: list[str] = []
        self._text = self._text.lstrip(" \t")
        while (end := self._end(is_end=is_end)) is not None:
            sentence, self._text = self._text[:end].strip(), self._text[end:].lstrip(" \t")
            if sentence:
                sentences.append(sentence)
                self._is_first = False
        return sentences

    def _end(self, *, is_end: bool) -> int | None:
        """Return where the first sentence ends; None if that is not known yet."""
        for found in _POSSIBLE_END.finditer(self._text):
            if found.end() > MAX_SENTENCE_CHARS:
                break
            clause = self._first_clause(found.start())
            if clause is not None:
                return clause
            verdict = self._is_end(found, is_end=is_end)
            if verdict is None:
                return None
            if verdict:
                return found.end()
        clause = self._first_clause(MAX_SENTENCE_CHARS)
        if clause is not None:
            return clause
        return self._cut() if len(self._text) > MAX_SENTENCE_CHARS else None

    def _is_end(self, found: re.Match[str], *, is_end: bool) -> bool | None:
        """Whether a possible end is one; None where what follows has to be seen first."""
        ending, before = found[0].rstrip(_CLOSERS), self._text[: found.start()]
        if ending[-1] not in ".…":
            return True
        last = _LAST_WORD.search(before)
        word = last[1].lower() if last else ""
        if ending == ".":
            if word in _ABBREVIATIONS or _LIST_NUMBER.search(before) or _INITIAL.search(before):
                return False
            if word not in _MAYBE and word not in _BEFORE_NUMBERS:
                return True
        # Several full stops are a pause, or an end.
        behind = self._text[found.end() :].lstrip(" \t")
        if not behind and not is_end:
            return None
        return not (behind[:1].isdigit() if word in _BEFORE_NUMBERS else behind[:1].islower())

    def _first_clause(self, limit: int) -> int | None:
        """Return where the first clause ends, if it is long enough and ends by ``limit``."""
        if not self._is_first:
            return None
        clause = _CLAUSE.search(self._text, FIRST_CLAUSE_CHARS - 1, limit + 1)
        return None if clause is None else clause.end()

    def _cut(self) -> int:
        """Return where to cut what is too long: behind the last clause, else the last word, else in the middle of one."""
        clauses = [found.end() for found in _CLAUSE.finditer(self._text, 0, MAX_SENTENCE_CHARS + 1)]
        if clauses and clauses[-1] > MAX_SENTENCE_CHARS // 2:
            return clauses[-1]
        space = self._text.rfind(" ", 0, MAX_SENTENCE_CHARS)
        return space if space > 0 else MAX_SENTENCE_CHARS
