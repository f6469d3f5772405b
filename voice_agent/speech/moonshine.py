"""Moonshine tiny (English): a batch of speech in, words and their probabilities out; synchronous.

An encoder makes one vector of every 384 samples or so; a decoder with a key-value cache then writes one token a step,
always the likeliest. How the two models are fed: the reference implementation in Hugging Face's ``transformers``
(``modeling_moonshine.py``) and its ONNX export.

Both models are int8 with one activation scale for each tensor, so what shares a tensor shares a rounding: a batch, or
a forced prefix, moves probabilities by a few hundredths and can tip a word that was a toss-up.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from voice_agent.core.units import SECONDS
from voice_agent.speech.engine import HEARING_RATE, MonoAudio, Recognition, RecognitionRequest, Urgency
from voice_agent.speech.loops import tokens_before_loop
from voice_agent.speech.onnx import Array, OnnxModel, Signature, TensorShape
from voice_agent.speech.tokens import BEGIN_TOKEN, END_TOKEN, VOCABULARY_SIZE, Vocabulary

MAX_TOKENS_PER_SECOND: Final = 6.5
"""What the model's authors allow for English; beyond it the decoder is making things up."""
SPARE_TOKENS: Final = 6
"""On top: a fast "yes, I do." in a third of a second."""
SPARE_TOKENS_WITH_CONTEXT: Final = 3
MIN_SAMPLES: Final = int(0.5 * SECONDS * HEARING_RATE)
"""Shorter speech is followed by silence up to this. The encoder's convolutions need 895 samples; a "No" of 0.28 s
was heard as "No, no, no" (0.82) alone and as "No." (0.87) with silence after it."""

_LAYERS: Final = 6
_HEADS: Final = 8
_HEAD_SIZE: Final = 36
_HIDDEN_SIZE: Final = 288

_CACHE: Final = [
    f"{layer}.{side}.{kind}"
    for layer in range(_LAYERS)
    for side in ("decoder", "encoder")
    for kind in ("key", "value")
]
_CACHE_SHAPE: Final = TensorShape("float32", (None, _HEADS, None, _HEAD_SIZE))
_FIRST_OUTPUTS: Final = ["logits", *(f"present.{name}" for name in _CACHE)]
_LATER_OUTPUTS: Final = [name for name in _FIRST_OUTPUTS if ".encoder." not in name]
"""What attends to the audio does not change after the first step."""

ENCODER_SIGNATURE: Final = Signature(
    inputs={
        "input_values": TensorShape("float32", (None, None)),
        "attention_mask": TensorShape("int64", (None, None)),
    },
    outputs={"last_hidden_state": TensorShape("float32", (None, None, _HIDDEN_SIZE))},
)
DECODER_SIGNATURE: Final = Signature(
    inputs={
        "input_ids": TensorShape("int64", (None, None)),
        "encoder_hidden_states": TensorShape("float32", (None, None, _HIDDEN_SIZE)),
        "encoder_attention_mask": TensorShape("int64", (None, None)),
        "use_cache_branch": TensorShape("bool", (1,)),
        **{f"past_key_values.{name}": _CACHE_SHAPE for name in _CACHE},
    },
    outputs={
        "logits": TensorShape("float32", (None, None, VOCABULARY_SIZE)),
        **{f"present.{name}": _CACHE_SHAPE for name in _CACHE},
    },
)


class MoonshineModel:
    """Recognises batches of speech; several threads may share one instance."""

    def __init__(self, encoder: OnnxModel, decoder: OnnxModel, vocabulary: Vocabulary) -> None:
        self._encoder = encoder
        self._decoder = decoder
        self._vocabulary = vocabulary

    @classmethod
    def open(
        cls, encoder: Path, decoder: Path, vocabulary: Path, *, setting: str, remedy: str
    ) -> "MoonshineModel":
        """Open the three files; ``setting`` and ``remedy`` complete the error.

        Raises:
            ModelFileError: a file is damaged or of another model.
        """
        return cls(
            OnnxModel.open(encoder, ENCODER_SIGNATURE, setting=setting, remedy=remedy),
            OnnxModel.open(decoder, DECODER_SIGNATURE, setting=setting, remedy=remedy),
            Vocabulary.open(vocabulary, setting=setting, remedy=remedy),
        )

    def warm_up(self) -> None:
        """Run once on a second of silence; blocks."""
        silence = np.zeros(HEARING_RATE, np.float32)
        self.recognise_batch(
            [RecognitionRequest(samples=silence, urgency=Urgency.FINAL, utterance_key=("", 0))],
            lambda _place: False,
        )

    def recognise_batch(
        self, requests: Sequence[RecognitionRequest], is_abandoned: Callable[[int], bool]
    ) -> list[Recognition | None]:
        """Recognise ``requests`` together; blocks, so call it on a worker thread.

        ``is_abandoned`` is asked between steps whether anybody still waits for the request at that place; if not,
        its result is None.
        """
        speech = [_at_least_the_minimum(request.samples) for request in requests]
        hypotheses = [_Hypothesis(request) for request in requests]
        encoded: dict[int, Array] = {}
        for row, samples in enumerate(speech):
            # One at a time, also in a batch: the encoder normalises over the whole of its input, so silence added
            # for a longer neighbour would change what is heard, and a batch saves it no time.
            if not is_abandoned(row):
                encoded[row] = self._encode(samples)
        if encoded:
            self._decode(list(encoded), speech, encoded, hypotheses, is_abandoned)
        return [
            hypothesis.recognition(self._vocabulary) if hypothesis.is_complete else None
            for hypothesis in hypotheses
        ]

    def _encode(self, samples: MonoAudio) -> Array:
        [hidden] = self._encoder.run(
            ["last_hidden_state"],
            {"input_values": samples[np.newaxis], "attention_mask": np.ones((1, len(samples)), np.int64)},
        )
        first: Array = hidden[0]
        return first

    def _decode(
        self,
        rows: list[int],
        speech: Sequence[MonoAudio],
        encoded: dict[int, Array],
        hypotheses: Sequence["_Hypothesis"],
        is_abandoned: Callable[[int], bool],
    ) -> None:
        """Write tokens for ``rows`` until each is complete or abandoned."""
        state = _DecoderState(rows, speech, encoded)
        # The common length of the prefixes goes in one step; what is longer is forced token by token below.
        forced = min(len(hypotheses[row].prefix) for row in rows)
        tokens = np.array([[BEGIN_TOKEN, *hypotheses[row].prefix[:forced]] for row in rows], np.int64)
        logits = state.step(self._decoder, tokens)
        for index, row in enumerate(rows):
            for place in range(forced):
                hypotheses[row].take(logits[index, place])
        while True:
            for index, row in enumerate(state.rows):
                hypotheses[row].take(logits[index, -1])
            going_on = [
                index
                for index, row in enumerate(state.rows)
                if not hypotheses[row].is_complete and not is_abandoned(row)
            ]
            if not going_on:
                return
            state.keep(going_on, speech, encoded)
            last = np.array([[hypotheses[row].tokens[-1]] for row in state.rows], np.int64)
            logits = state.step(self._decoder, last)


class _Hypothesis:
    """What has been written for one request so far."""

    def __init__(self, request: RecognitionRequest) -> None:
        self.prefix = (*request.context_tokens, *request.prefix_tokens)
        self._context = len(request.context_tokens)
        self.tokens: list[int] = []
        self.is_complete = False
        self._is_looping = False
        self._probabilities: list[float] = []
        # Only the utterance's own audio pays for its tokens: from half a second of speech behind a longer context the
        # model likes to write the context's phrase again.
        seconds = (len(request.samples) - request.context_samples) / HEARING_RATE
        spare = SPARE_TOKENS_WITH_CONTEXT if self._context else SPARE_TOKENS
        self._max_tokens = self._context + int(seconds * MAX_TOKENS_PER_SECOND) + spare

    def take(self, logits: npt.NDArray[np.float32]) -> None:
        """Add the token that comes next under ``logits``, shape (vocabulary,), or the prefix's."""
        is_forced = len(self.tokens) < len(self.prefix)
        token = self.prefix[len(self.tokens)] if is_forced else int(logits.argmax())
        if token == END_TOKEN:
            self.is_complete = True
            return
        is_context = len(self.tokens) < self._context
        self.tokens.append(token)
        if is_context:
            return
        self._probabilities.append(_softmax_at(logits, token))
        if is_forced:
            return
        kept = tokens_before_loop(self.tokens[self._context :])
        if kept is not None:
            kept = max(kept + self._context, len(self.prefix))
            del self.tokens[kept:]
            del self._probabilities[kept - self._context :]
            self._is_looping = True
        self.is_complete = self._is_looping or len(self.tokens) >= max(self._max_tokens, len(self.prefix))

    def recognition(self, vocabulary: Vocabulary) -> Recognition:
        """Return the result."""
        words, word_ends = vocabulary.words_of(self.tokens[self._context :])
        return Recognition(
            # The vocabulary has a token of two commas, which the model likes after "in short".
            text=" ".join(words).replace(",,", ","),
            tokens=tuple(self.tokens[self._context :]),
            token_probabilities=tuple(self._probabilities),
            word_ends=word_ends,
            confidence=_geometric_mean(self._probabilities),
            is_looping=self._is_looping,
        )


class _DecoderState:
    """The rows that are still being written, with their audio and their key-value cache."""

    def __init__(self, rows: list[int], speech: Sequence[MonoAudio], encoded: dict[int, Array]) -> None:
        self.rows = rows
        empty = np.zeros((len(rows), _HEADS, 0, _HEAD_SIZE), np.float32)
        self._cache: dict[str, Array] = dict.fromkeys(_CACHE, empty)
        self._is_first = True
        self._set_audio(speech, encoded)

    def _set_audio(self, speech: Sequence[MonoAudio], encoded: dict[int, Array]) -> None:
        longest = max(len(speech[row]) for row in self.rows)
        frames = max(len(encoded[row]) for row in self.rows)
        # The decoder's mask is in samples; it derives the mask of the encoder's frames itself.
        self._mask = np.zeros((len(self.rows), longest), np.int64)
        self._hidden = np.zeros((len(self.rows), frames, _HIDDEN_SIZE), np.float32)
        for index, row in enumerate(self.rows):
            self._mask[index, : len(speech[row])] = 1
            self._hidden[index, : len(encoded[row])] = encoded[row]

    def step(self, decoder: OnnxModel, tokens: Array) -> Array:
        """Feed ``tokens``, int64 (rows, n); return the logits after each, (rows, n, vocabulary)."""
        outputs = _FIRST_OUTPUTS if self._is_first else _LATER_OUTPUTS
        logits, *present = decoder.run(
            outputs,
            {
                "input_ids": tokens,
                "encoder_hidden_states": self._hidden,
                "encoder_attention_mask": self._mask,
                "use_cache_branch": np.array([not self._is_first]),
                **{f"past_key_values.{name}": value for name, value in self._cache.items()},
            },
        )
        for name, value in zip(outputs[1:], present, strict=True):
            self._cache[name.removeprefix("present.")] = value
        self._is_first = False
        return logits

    def keep(self, indices: list[int], speech: Sequence[MonoAudio], encoded: dict[int, Array]) -> None:
        """Go on with the rows at ``indices`` only, so that the finished ones cost no more time."""
        if len(indices) == len(self.rows):
            return
        self.rows = [self.rows[index] for index in indices]
        self._set_audio(speech, encoded)
        frames = self._hidden.shape[1]
        self._cache = {
            name: value[indices, :, :frames] if ".encoder." in name else value[indices]
            for name, value in self._cache.items()
        }


def _at_least_the_minimum(samples: MonoAudio) -> MonoAudio:
    if len(samples) >= MIN_SAMPLES:
        return samples
    return np.pad(samples, (0, MIN_SAMPLES - len(samples)))


def _softmax_at(logits: npt.NDArray[np.float32], token: int) -> float:
    highest = logits.max()
    return float(np.exp(logits[token] - highest) / np.exp(logits - highest).sum())


def _geometric_mean(probabilities: Sequence[float]) -> float:
    """Return the geometric mean, or 0.0 of nothing; log of a probability that underflowed is held at a floor."""
    if not probabilities:
        return 0.0
    return float(np.exp(np.log(np.maximum(probabilities, 1e-12)).mean()))
