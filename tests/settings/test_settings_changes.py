"""What other settings do to a running server: live ones take effect, the rest waits, and never a mixture that is wrong."""

import attrs
import pytest

from voice_agent.core.errors import SettingsError
from voice_agent.settings.changes import adopt, differences
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.fields import fields_by_key
from voice_agent.settings.rules import Rule
from voice_agent.settings.schema import ServerSettings, Settings, VadSettings

RUNNING = Settings(server=ServerSettings(port=1, max_calls=10))


def test_nothing_changes_nothing() -> None:
    """The same settings, read again: nothing takes effect and nothing waits."""
    adoption = adopt(RUNNING, Settings(server=ServerSettings(port=1, max_calls=10)))
    assert (adoption.settings, adoption.changed, adoption.waiting) == (RUNNING, (), ())


def test_live_settings_take_effect_and_the_others_wait() -> None:
    """In one change of both kinds the running server keeps its port and takes the number of calls."""
    wanted = Settings(server=ServerSettings(port=2, max_calls=20), vad=VadSettings(threshold=0.6))
    adoption = adopt(RUNNING, wanted)
    assert adoption.changed == ("server.max_calls", "vad.threshold")
    assert adoption.waiting == ("server.port",)
    assert adoption.settings.server == ServerSettings(port=1, max_calls=20)
    assert adoption.settings.vad == wanted.vad


def test_what_waits_goes_on_waiting_and_can_be_taken_back() -> None:
    """What waits is told as long as it is wanted; wanted no more, nothing is left of it."""
    wanted = Settings(server=ServerSettings(port=2, max_calls=10))
    first = adopt(RUNNING, wanted)
    assert (first.settings, first.waiting) == (RUNNING, ("server.port",))
    assert adopt(first.settings, wanted).waiting == ("server.port",)
    assert adopt(first.settings, RUNNING).waiting == ()


def test_a_live_setting_that_needs_one_that_waits_is_refused() -> None:
    """A rule between the two would be broken by half of the change, so none of it takes effect."""
    rule = Rule[Settings](
        ("server.max_calls", "server.port"),
        lambda settings: settings.server.max_calls <= settings.server.port * 10,
        "server.max_calls must not be above ten times server.port",
    )
    wanted = Settings(server=ServerSettings(port=2, max_calls=20))
    assert rule.holds(wanted)
    with pytest.raises(SettingsError, match=r"restart(.|\n)*must not be above ten times") as refused:
        adopt(RUNNING, wanted, rules=[rule])
    assert refused.value.code == "invalid_settings"


def test_every_difference_is_found() -> None:
    """Each setting by itself: changed, it is the one difference, and it is either live or waits."""
    for field in fields_by_key(Settings).values():
        section = getattr(RUNNING, field.section)
        other = attrs.evolve(RUNNING, **{field.section: attrs.evolve(section, **{field.name: object()})})
        assert [found.key for found in differences(RUNNING, other)] == [field.key]
        adoption = adopt(RUNNING, other, rules=())
        assert (adoption.changed, adoption.waiting) == (
            ((field.key,), ()) if field.live else ((), (field.key,))
        )


def test_what_is_in_force_is_replaced_whole() -> None:
    """Who took what is in force keeps settings and version that belong together."""
    current = CurrentSettings(RUNNING)
    before = current.in_force
    current.replace(Settings())
    assert (before.settings, before.version) == (RUNNING, 1)
    assert (current.now, current.version) == (Settings(), 2)
