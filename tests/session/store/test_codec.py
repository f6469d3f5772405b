"""Records and entries as JSON: both ways, the version before too, and nothing else."""

import json
from collections.abc import Callable

import pytest

from voice_agent.core.errors import StoreCorruptError
from voice_agent.core.journal import JournalEntry, RecordState, SessionRecord
from voice_agent.session.store.codec import dump_entry, dump_record, load_entry, load_record

MakeRecord = Callable[..., SessionRecord]
MakeEntry = Callable[..., JournalEntry]

VERSION_0 = """
{"session_id": "s1", "key_id": "k1", "tenant": "t1", "transport": "websocket", "encoding": "opus", "sample_rate": 48000,
 "channels": 2, "language": "en", "settings_version": 3, "node": "n1", "opened_at": 1.0, "updated_at": 2.0,
 "lease_until": 3.0, "resumable_seconds": 60.0, "token_sha256": "t", "used_tokens": ["a", "b"], "ended_at": null,
 "close_reason": null, "state": "detached", "epoch": 2}
"""


def test_there_and_back(make_record: MakeRecord, make_entry: MakeEntry) -> None:
    """What is written is read as it was."""
    record = make_record(
        used_tokens=("a", "b"), state=RecordState.ENDED, ended_at=2.5, close_reason="stopped"
    )
    assert load_record(dump_record(record)) == record
    entry = make_entry(3, "„straße“ 東京 \u2028")
    assert load_entry(dump_entry(entry).encode()) == entry


def test_the_version_before_is_read() -> None:
    """A file of the version before is understood, and is of this version when it is written again."""
    record = load_record(VERSION_0)
    assert (record.version, record.wire, record.agent) == (1, "websocket", "none")
    assert (record.state, record.used_tokens) == (RecordState.DETACHED, ("a", "b"))
    assert json.loads(dump_record(record))["version"] == 1


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 2}', '{"version": "x"}', VERSION_0.replace('"epoch": 2', '"epoch": "two"'),
     VERSION_0.replace('"epoch"', '"other"')],
)  # fmt: skip
def test_what_is_no_record_is_refused(text: str) -> None:
    """Damage, unknown versions and unknown fields are one typed error."""
    with pytest.raises(StoreCorruptError):
        load_record(text)
    with pytest.raises(StoreCorruptError):
        load_entry(text)
