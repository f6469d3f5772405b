"""How this process works together with others that keep their sessions in the same place."""

from typing import Literal

import attrs

from voice_agent.core.units import SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class ClusterSettings:
    """How this process works together with others that keep their sessions in the same place."""

    node_name: str = setting(
        "",
        "The name of this process among the others; empty takes the machine's name and something random. Workers of one "
        "supervisor are called `name/worker-1` and so on.",
        maximum=128,
    )
    advertised_url: str = setting(
        "",
        "Where other nodes reach this one, as `http://10.0.0.7:8080`; empty: requests about its calls can't be passed on.",
        maximum=256,
    )
    secret: str = setting(
        "",
        "What nodes sign with when they pass requests on, the same on all of them; without it nothing is passed on.",
        secret=True,
        maximum=256,
    )
    beat_seconds: float = setting(
        2 * SECONDS,
        "So often a node tells the others how it does, and hears of them.",
        unit="seconds",
        minimum=0.1,
        maximum=60,
    )
    gone_seconds: float = setting(
        10 * SECONDS,
        "A node that has told nothing for so long is gone; at least three beats.",
        unit="seconds",
        minimum=0.3,
        maximum=600,
    )
    when_away: Literal["open", "closed"] = setting(
        "open",
        "When the others can't be heard of for `gone_seconds`: `open` counts a key's calls on this node alone, `closed` "
        "takes no new calls.",
    )
    answer_seconds: float = setting(
        5 * SECONDS,
        "A node to which a request was passed on begins its answer within this time.",
        unit="seconds",
        minimum=0.1,
        maximum=60,
    )
