"""Names of nodes: what a process is called among others, and the short tag that stands for the name in addresses."""

import hashlib
import re
import secrets
import socket
from base64 import urlsafe_b64encode
from typing import Final

from voice_agent.core.worker import WorkerPlace
from voice_agent.settings.schema import ClusterSettings

TAG_BYTES: Final = 6
"""48 bits: two of a thousand nodes share a tag once in 500 million clusters; then some requests meet a 404."""
_MACHINE_CHARACTERS: Final = 64
_RANDOM_BYTES: Final = 3


def name_of_node(settings: ClusterSettings, place: WorkerPlace | None = None) -> str:
    """Return what this process is called; where nobody chose and it is no worker, another name at each call.

    A random part, because a process that comes after another one on the same machine is not the owner of its calls.
    Workers of one supervisor have the first part in common: it stands for their folder, which is made anew at each start.
    """
    machine = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:_MACHINE_CHARACTERS] or "node"
    if place is None:
        return settings.node_name or f"{machine}-{secrets.token_hex(_RANDOM_BYTES)}"
    of_folder = hashlib.sha256(f"{place.folder} {place.folder.stat().st_ino}".encode()).hexdigest()
    return f"{settings.node_name or f'{machine}-{of_folder[: 2 * _RANDOM_BYTES]}'}/{place.name}"


def tag_of(node: str) -> str:
    """Return eight characters that stand for a node and can stand in addresses and subprotocols."""
    return urlsafe_b64encode(hashlib.sha256(node.encode()).digest()[:TAG_BYTES]).decode()


def are_of_one_machine(node: str, other: str) -> bool:
    """Whether two nodes share a folder of sockets: their names are ``name/worker-1`` and ``name/worker-2``."""
    name, slash, _ = node.partition("/")
    return bool(slash) and other.startswith(f"{name}/")
