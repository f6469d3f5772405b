"""deploy/: container, compose file and Kubernetes manifests, checked as far as a machine without either can."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from voice_agent.session.store.redis import open_redis_store
from voice_agent.settings.schema import Settings

ROOT = Path(__file__).parents[2]
COMPOSE_FOLDER = ROOT / "deploy/compose"
KUBERNETES = ROOT / "deploy/kubernetes"
COMPOSE: dict[str, Any] = yaml.safe_load((COMPOSE_FOLDER / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "deploy/container/Dockerfile").read_text()
NOBODY = "65532"
EXAMPLES = {
    "ACCESS__KEYS": f'kiosk = {{ sha256 = "{"0" * 64}" }}',
    "CLUSTER__SECRET": "a" * 64,
    "STORE__REDIS_URL": "redis://127.0.0.1:6379/0",
}
"""Secrets, by the setting that their file is for."""
STOP_AFTER_GRACE_SECONDS = 10
"""What a server may take beyond its grace time: 5 s of the drain, and 3 until the last resort."""


def manifest(name: str) -> dict[str, Any]:
    """Return one object of the Kubernetes manifests."""
    loaded: dict[str, Any] = yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text())
    return loaded


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = manifest("deployment")["spec"]["template"]["spec"]
    return spec


def run(*command: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=60, check=False, **options
    )


def variables_of(kind: str) -> dict[str, str]:
    """Return the environment that a container gets."""
    if kind == "compose":
        return dict(COMPOSE["services"]["node-a"]["environment"])
    filled_in = {"status.podIP": "10.0.0.1", "metadata.name": "voice-agent-6d4cf56db6-x2x7k"}
    entries = pod()["containers"][0]["env"]
    own = {
        entry["name"]: filled_in[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        for entry in entries
        if "valueFrom" in entry
    }
    given = {entry["name"]: entry["value"] for entry in entries if "value" in entry}
    return own | {name: value.replace("$(POD_IP)", own["POD_IP"]) for name, value in given.items()}


def test_the_compose_file_is_one() -> None:
    """By the specification's own schema."""
    tool = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = run(*tool, COMPOSE_FOLDER / "compose.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("path", sorted(KUBERNETES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_manifests_are_what_kubernetes_takes(path: Path) -> None:
    """By the API's own schemas, no unknown field; what kustomize reads names files that are there."""
    if path.stem == "kustomization":
        listed = yaml.safe_load(path.read_text())
        files = [*listed["resources"], *listed["configMapGenerator"][0]["files"]]
        assert [file for file in files if not (KUBERNETES / file).is_file()] == []
        left = {other.name for other in KUBERNETES.glob("*.yaml")} - set(files)
        assert left == {"kustomization.yaml", "secret.example.yaml"}
        return
    tool = Path(sys.executable).with_name("kubernetes-validate")
    checked = run(tool, "--strict", path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("kind", ["compose", "kubernetes"])
def test_every_variable_is_a_setting(kind: str, tmp_path: Path) -> None:
    """A name that changed, or a value that is out of range, would stop the container's start."""
    variables = {}
    for name, value in variables_of(kind).items():
        if not name.startswith("VOICE_AGENT__"):
            continue
        if name.endswith("_FILE"):
            file = tmp_path / name
            file.write_text(EXAMPLES[name.removeprefix("VOICE_AGENT__").removesuffix("_FILE")])
            file.chmod(0o400)
            variables[name] = str(file)
        else:
            variables[name] = value
    environment = {**os.environ, **variables}
    if kind == "kubernetes":
        shutil.copy(KUBERNETES / "settings.toml", tmp_path)
    checked = run(sys.executable, "-m", "voice_agent", "settings", "check", env=environment, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_nobody_is_root_and_nothing_is_written_but_the_state() -> None:
    """In all three files; the number is the same, because files belong to it."""
    assert f"USER {NOBODY}:{NOBODY}" in DOCKERFILE
    assert pod()["securityContext"]["runAsUser"] == int(NOBODY)
    assert pod()["securityContext"]["runAsNonRoot"] is True
    container = pod()["containers"][0]["securityContext"]
    assert container["readOnlyRootFilesystem"] is True
    assert container["capabilities"] == {"drop": ["ALL"]}
    for node in ("node-a", "node-b"):
        service = COMPOSE["services"][node]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert f"chgrp -R {NOBODY}" in (COMPOSE_FOLDER / "prepare").read_text()


def test_the_time_to_stop_holds_the_drain() -> None:
    """What ends the container waits for the grace time and for what comes behind it."""
    pods = tomllib.loads((KUBERNETES / "settings.toml").read_text())["server"]["grace_seconds"]
    assert pod()["terminationGracePeriodSeconds"] == pods + STOP_AFTER_GRACE_SECONDS
    nodes = Settings().server.grace_seconds
    assert COMPOSE["services"]["node-a"]["stop_grace_period"] == f"{nodes + STOP_AFTER_GRACE_SECONDS:.0f}s"


def test_the_autoscaler_asks_for_a_metric_that_there_is() -> None:
    """A name that nobody exports never scales."""
    (metric,) = manifest("horizontalpodautoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "voice_agent_active_sessions"
    assert "voice_agent_active_sessions" in (ROOT / "docs/observability.md").read_text()


def test_the_image_holds_the_versions_that_were_tested() -> None:
    """Packages come from the constraints; everything that is copied is let through the ignore file."""
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert len(installs) == 2
    assert all("-c constraints.txt" in install or "--no-deps" in install for install in installs)
    ignored = (ROOT / "deploy/container/Dockerfile.dockerignore").read_text()
    allowed = set(re.findall(r"^!(\S+)$", ignored, re.MULTILINE))
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for name in line.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_the_metrics_are_scraped_with_the_key_that_observes() -> None:
    """Prometheus' own reading of the configuration, and the secret's place."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed; Debian has it in the package prometheus")
    text = (COMPOSE_FOLDER / "prometheus.yml").read_text()
    assert "credentials_file: /run/secrets/observe-key" in text
    checked = run(tool, "check", "config", "--syntax-only", COMPOSE_FOLDER / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """The secrets that ``prepare`` makes, in a copy of the folder."""
    folder = tmp_path / "compose"
    shutil.copytree(COMPOSE_FOLDER, folder, ignore=shutil.ignore_patterns("secrets"))
    made = run(folder / "prepare", env={**os.environ, "VOICE_AGENT": f"{sys.executable} -m voice_agent"})
    assert made.returncode == 0, made.stdout + made.stderr
    assert len(re.findall(r"va_(?:caller|observer|operator)_[0-9a-f]{64}", made.stdout)) == 3
    return folder / "secrets"


def test_prepare_makes_secrets_once_that_only_the_containers_read(prepared: Path) -> None:
    """Everything that the compose file mounts is there, for nobody else; a second run changes nothing."""
    wanted = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    before = {path.name: path.read_text() for path in prepared.iterdir()}
    assert set(before) == wanted
    assert [path.name for path in prepared.iterdir() if path.stat().st_mode & 0o007] == []
    again = run(prepared.parent / "prepare")
    assert again.returncode == 0
    assert "already" in again.stderr
    assert {path.name: path.read_text() for path in prepared.iterdir()} == before
    keys = {"VOICE_AGENT__ACCESS__KEYS_FILE": str(prepared / "keys")}
    listed = run(
        sys.executable, "-m", "voice_agent", "keys", "list", env={**os.environ, **keys}, cwd=prepared
    )
    assert listed.returncode == 0, listed.stderr
    assert all(name in listed.stdout for name in ("caller", "observer", "operator"))


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number: int = listener.getsockname()[1]
        return number


@pytest.fixture
def redis_as_composed(prepared: Path, port: int, tmp_path: Path) -> Iterator[str]:
    """A Redis with the configuration that Valkey gets; its address with the node's user and password."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed; Debian has it in the package redis-server")
    configuration = (prepared / "valkey-conf").read_text().replace("dir /data", f"dir {tmp_path}")
    file = tmp_path / "redis.conf"
    file.write_text(f"{configuration}bind 127.0.0.1\nport {port}\n")
    process = subprocess.Popen([program, file], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any("Ready to accept connections" in line for line in process.stdout)
        yield (prepared / "redis-url").read_text().replace("valkey:6379", f"127.0.0.1:{port}")
    finally:
        process.terminate()
        process.communicate(timeout=10)


async def test_the_nodes_user_may_do_what_the_store_needs_and_nobody_else_anything(
    redis_as_composed: str,
) -> None:
    """The very configuration and address that compose mounts, against a real server."""
    with trio.fail_after(30):
        async with open_redis_store(redis_as_composed, prefix="voice-agent", keep_seconds=60) as store:
            await store.check()
            assert await store.record("nobody") is None
    host, _, port = redis_as_composed.rpartition("@")[2].partition("/")[0].partition(":")
    with socket.create_connection((host, int(port)), 5) as stranger:
        stranger.sendall(b"PING\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")
