"""Transcripts as text, JSON, SRT or VTT, and files that are either whole or not there."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from voice_agent.cli.subtitles import to_srt, to_vtt
from voice_agent.core.transcripts import TranscriptResult

Format = Literal["text", "json", "srt", "vtt"]
SUFFIXES: Final[dict[Format, str]] = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}


class OutputPlanError(ValueError):
    """The output can't go where it was asked to go; the message says why."""


@attrs.frozen(kw_only=True)
class FileTranscript:
    """What was heard in a file; ``duration_seconds`` is the audio's."""

    path: Path
    duration_seconds: float
    finals: Sequence[TranscriptResult]


def choose_format(asked: Format | None, output: Path | None) -> Format:
    """Return the format asked for, else what the output's suffix says, else text."""
    if asked is not None:
        return asked
    suffixes = {suffix: name for name, suffix in SUFFIXES.items()}
    return suffixes.get(output.suffix.lower(), "text") if output is not None else "text"


def plan_outputs(files: Sequence[Path], output: Path | None, form: Format) -> list[Path | None]:
    """Return where each file's transcript goes; ``None`` is standard output.

    Raises:
        OutputPlanError: several subtitle files would run into one, two transcripts would have the same name, a
            transcript would overwrite its recording, or the folder is missing or may not be written.
    """
    if output is None:
        if len(files) > 1 and form in ("srt", "vtt"):
            raise OutputPlanError(f"several files can't be one {form}; give a folder with --output")
        return [None for _ in files]
    if output.is_dir():
        targets = [output / (path.stem + SUFFIXES[form]) for path in files]
    elif len(files) > 1:
        raise OutputPlanError(f"several files need a folder to go to, and {output} is none; make it first")
    else:
        targets = [output]
    for target, count in Counter(targets).items():
        if count > 1:
            raise OutputPlanError(f"{count} files would all be written to {target}; transcribe them apart")
    recordings = {path.resolve() for path in files}
    for target in targets:
        if target.resolve() in recordings:
            raise OutputPlanError(f"the transcript would overwrite the recording {target}")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise OutputPlanError(f"the folder {target.parent} does not exist or may not be written")
    return list(targets)


def render(transcript: FileTranscript, form: Format) -> str:
    """Return a transcript in a format; it ends with a line break unless it is empty."""
    return _RENDERERS[form](transcript)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that ``path`` holds either what it held before or the whole content, also after a crash.

    Raises:
        OSError: it can't be written; nothing is left behind.
    """
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        mode = 0o666 & ~_umask()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)  # noqa: PTH105 (mkstemp gives a name, not a Path)
    except BaseException:
        os.unlink(name)  # noqa: PTH108 (the same)
        raise


def _umask() -> int:
    """The process's mask; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _render_text(transcript: FileTranscript) -> str:
    return "".join(f"{final.text}\n" for final in transcript.finals)


def _render_json(transcript: FileTranscript) -> str:
    described = {
        "file": str(transcript.path),
        "duration_seconds": round(transcript.duration_seconds, 3),
        "text": " ".join(final.text for final in transcript.finals),
        "finals": [_final_dict(final) for final in transcript.finals],
    }
    return json.dumps(described, ensure_ascii=False) + "\n"


def _final_dict(final: TranscriptResult) -> dict[str, Any]:
    described: dict[str, Any] = {
        "utterance": final.utterance,
        "text": final.text,
        "start": round(final.start, 3),
        "end": round(final.end, 3),
        "confidence": round(final.confidence, 3),
        "language": final.language,
    }
    if final.words:
        described["words"] = [
            {
                "text": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "confidence": round(word.confidence, 3),
            }
            for word in final.words
        ]
    return described


_RENDERERS: Final[dict[Format, Callable[[FileTranscript], str]]] = {
    "text": _render_text,
    "json": _render_json,
    "srt": lambda transcript: to_srt(transcript.finals),
    "vtt": lambda transcript: to_vtt(transcript.finals),
}
