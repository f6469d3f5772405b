"""Concealer: sound in place of lost packets.

PyAV hands libopus whole packets only, so neither libopus's own concealment nor its in-band error correction can be
asked for. Instead the last pitch period is repeated and faded out, as in ITU-T G.711 Appendix I: a recogniser hears
a vowel go on for a moment instead of a click and a hole.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

RATE: Final = 48_000
_MIN_LAG: Final = RATE // 400
_MAX_LAG: Final = RATE // 66
"""Pitch of 66 to 400 Hz."""
_MATCH: Final = RATE // 100
"""10 ms are compared to find the pitch."""
_HISTORY: Final = _MAX_LAG + _MATCH
_COARSE: Final = 6
"""The pitch is looked for at 8 kHz, which is fine enough to repeat a period."""
_SEAM: Final = RATE // 200
"""5 ms of cross-fade between what was made up and what came next."""
_FADE: Final = RATE * 60 // 1000

Samples = npt.NDArray[np.int16]


class Concealer:
    """One call's; give it every decoded piece with :meth:`smooth`, and ask it for what is missing."""

    def __init__(self) -> None:
        self._history = np.zeros(_HISTORY, np.int16)
        self._period: npt.NDArray[np.float32] | None = None
        self._made = 0

    def conceal(self, samples: int) -> Samples:
        """Return ``samples`` of int16 that go on from what was heard last, silent after 60 ms."""
        made = self._continue(samples)
        self._made += samples
        return made.astype(np.int16)

    def smooth(self, decoded: Samples) -> Samples:
        """Return a decoded piece; the first one after a concealment is blended with it."""
        if self._period is not None:
            seam = min(_SEAM, len(decoded))
            rise = np.arange(seam, dtype=np.float32) / seam
            blended = decoded[:seam] * rise + self._continue(seam) * (1 - rise)
            decoded = np.concatenate([blended.astype(np.int16), decoded[seam:]])
            self._period = None
            self._made = 0
        if len(decoded) >= _HISTORY:
            self._history = decoded[-_HISTORY:]
        else:
            self._history = np.concatenate([self._history[len(decoded) :], decoded])
        return decoded

    def _continue(self, samples: int) -> npt.NDArray[np.float32]:
        if self._period is None:
            self._period = self._last_period()
        audible = min(samples, max(0, _FADE - self._made))
        at = np.arange(self._made, self._made + audible)
        made = np.zeros(samples, np.float32)
        made[:audible] = self._period[at % len(self._period)] * (1 - at.astype(np.float32) / _FADE)
        return made

    def _last_period(self) -> npt.NDArray[np.float32]:
        """Return the last pitch period, its end blended so that it can be repeated."""
        history = self._history.astype(np.float32)
        coarse = history[_HISTORY % _COARSE :: _COARSE]
        match = coarse[-_MATCH // _COARSE :]
        lags = np.arange(_MIN_LAG // _COARSE, _MAX_LAG // _COARSE + 1)
        windows = np.lib.stride_tricks.sliding_window_view(coarse, len(match))
        candidates = windows[len(windows) - 1 - lags]
        energies = np.sqrt((candidates * candidates).sum(axis=1)) + 1.0
        lag = _refine(history, int(lags[np.argmax(candidates @ match / energies)]) * _COARSE)
        period = history[-lag:].copy()
        # The period's tail fades into what stood one period earlier, so that tail and head meet.
        seam = lag // 4
        rise = np.arange(1, seam + 1, dtype=np.float32) / seam
        period[-seam:] = period[-seam:] * (1 - rise) + history[-lag - seam : -lag] * rise
        return period


def _refine(history: npt.NDArray[np.float32], coarse_lag: int) -> int:
    """Return the pitch lag to the sample, found around the coarse one."""
    lags = range(max(_MIN_LAG, coarse_lag - _COARSE), min(_MAX_LAG, coarse_lag + _COARSE) + 1)
    match = history[-_MATCH:]
    return max(lags, key=lambda lag: -float(np.abs(history[-_MATCH - lag : -lag] - match).sum()))
