"""Handles name the node that made them, to nodes that share its secret, and to nobody else."""

from voice_agent.cluster.handles import Handles
from voice_agent.cluster.names import are_of_one_machine, name_of_node, tag_of
from voice_agent.settings.schema import ClusterSettings

SECRET = "s" * 32
A, B = Handles(tag_of("a"), SECRET), Handles(tag_of("b"), SECRET)


def test_another_node_s_handle_names_it() -> None:
    """The node's own is looked up at home; no two are alike; they can stand in an address and in a subprotocol."""
    handle = A.new()
    assert B.maker_of(handle) == tag_of("a")
    assert A.maker_of(handle) is None
    assert A.new() != handle
    assert set(handle) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
    assert len(handle) < 100


def test_what_nobody_made_names_nobody() -> None:
    """A guess, one with another tag, one of a cluster with another secret: none of them is passed on."""
    handle = A.new()
    tag, random, signature = handle.split(".")
    for wrong in (
        "",
        "..",
        random,
        f"{tag}.{random}",
        f"{tag_of('c')}.{random}.{signature}",
        f"{tag}.{random}x.{signature}",
        f"{tag}.{random}.{signature[:-1]}",
        f"{handle}.x",
        "é.é.é",
        Handles(tag_of("a"), "t" * 32).new(),
    ):
        assert B.maker_of(wrong) is None


def test_without_a_secret_a_handle_names_no_node() -> None:
    """It is random and nothing else."""
    alone = Handles(tag_of("a"), "")
    assert "." not in alone.new()
    assert len(alone.new()) >= 32
    assert alone.maker_of(A.new()) is None


def test_names() -> None:
    """The operator's, or one that no process before had; workers of one supervisor have their first part in common."""
    assert name_of_node(ClusterSettings(node_name="n1")) == "n1"
    assert name_of_node(ClusterSettings()) != name_of_node(ClusterSettings())
    assert are_of_one_machine("n/worker-1", "n/worker-2")
    assert not are_of_one_machine("n/worker-1", "m/worker-2")
    assert not are_of_one_machine("n", "n")
    assert not are_of_one_machine("n/worker-1", "n2/worker-1")
