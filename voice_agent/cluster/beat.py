"""Beat: what a node tells the others of itself, again and again; who tells nothing any more is gone."""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import attrs
import cattrs

from voice_agent.core.errors import StoreCorruptError


class NodeState(StrEnum):
    """Where a node is in its life."""

    STARTING = "starting"
    OPEN = "open"
    """It takes calls, as far as it has room."""
    DRAINING = "draining"
    """It takes no new ones."""


@attrs.frozen(kw_only=True)
class Beat:
    """One node at one moment.

    ``calls_held`` says how many calls each holder has open there, ``owed_seconds`` how much of each rate the calls have
    used that were begun there: the sum, since the node began to count, of the seconds that the rate takes to give one
    back. Both name the holders who matter most, and no more than the node keeps count of.
    """

    node: str
    state: NodeState
    version: str
    capacity: int
    """Calls that it takes at once."""
    calls: int
    load: float
    """The share of its busiest workers' time that is taken, from 0."""
    at: float
    """Unix time, by the node's own clock; for people. How old a beat is, the directory says."""
    advertised_url: str = ""
    internal_address: str = ""
    calls_held: Mapping[str, int] = attrs.field(factory=dict, repr=False)
    owed_seconds: Mapping[str, float] = attrs.field(factory=dict, repr=False)


@attrs.frozen(kw_only=True)
class Sighting:
    """A beat, and how long ago it was put."""

    beat: Beat
    age_seconds: float


def dump_beat(beat: Beat) -> str:
    """Write a beat."""
    return json.dumps(_CONVERTER.unstructure(beat), separators=(",", ":"))


def load_beat(text: str | bytes) -> Beat:
    """Read a beat; members that a later version has added are passed over.

    Raises:
        StoreCorruptError: it is none.
    """
    try:
        return _CONVERTER.structure(json.loads(text), Beat)
    except Exception as error:
        raise StoreCorruptError(f"a node's beat can't be read: {error}") from error


_CONVERTER: Final = cattrs.Converter()
