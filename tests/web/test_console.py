"""The console page's routes, without a browser: what is served, as what, and under which rules."""

import re
import tomllib
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path

import pytest
from quart_trio import QuartTrio

from voice_agent.observability.metrics import Metrics
from voice_agent.web.app import Readiness, create_app
from voice_agent.web.console import CONTENT_SECURITY_POLICY, CONTENT_TYPES, INDEX

FOLDER = Path(str(resources.files("voice_agent.web"))) / "console"
ROOT = Path(__file__).parents[2]
ADDRESSES = ["/", *(f"/console/{name}" for name in CONTENT_TYPES if name != INDEX)]


@pytest.fixture
def app() -> QuartTrio:
    return create_app(metrics=Metrics(), readiness=lambda: Readiness(is_ready=True, detail={}))


@pytest.mark.parametrize("address", ADDRESSES)
async def test_every_file_is_served_under_strict_rules(app: QuartTrio, address: str) -> None:
    """The exact type, no sniffing, no foreign source, no framing, and the file as it lies in the package."""
    name = address.removeprefix("/console/") if address != "/" else INDEX
    answer = await app.test_client().get(address)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == CONTENT_TYPES[name]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "microphone=(self)" in answer.headers["Permissions-Policy"]
    assert await answer.get_data() == (FOLDER / name).read_bytes()


def test_the_policy_allows_nothing_inline_and_nobody_else() -> None:
    """Neither inline code nor another host may ever be needed."""
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "*" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY


async def test_who_has_a_file_is_not_sent_it_again(app: QuartTrio) -> None:
    """The ETag brings a 304 without a body; another one brings the file."""
    client = app.test_client()
    etag = (await client.get("/console/page.js")).headers["ETag"]
    again = await client.get("/console/page.js", headers={"If-None-Match": etag})
    assert again.status_code == 304
    assert await again.get_data() == b""
    assert again.headers["ETag"] == etag
    assert again.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    other = await client.get("/console/page.js", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    "address",
    [
        "/console/",
        "/console/index.html",
        "/console/none.js",
        "/console/..%2fapp.py",
        "/console/../app.py",
        "/console/%2e%2e/app.py",
        "/console/console.css/x",
        "/index.html",
    ],
)
async def test_nothing_else_is_served(app: QuartTrio, address: str) -> None:
    """Names are looked up in a list, so no path leads out of the folder."""
    answer = await app.test_client().get(address)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_every_file_of_the_folder_is_listed_and_packaged() -> None:
    """A new file can't be forgotten: neither in the list of the routes nor in the wheel."""
    names = {path.name for path in FOLDER.iterdir()}
    assert names == set(CONTENT_TYPES)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["voice_agent"]
    for name in names:
        assert any(fnmatch(f"web/console/{name}", pattern) for pattern in patterns), name


def test_the_page_names_no_other_host_and_needs_no_inline_code() -> None:
    """What the policy would refuse isn't there in the first place."""
    page = (FOLDER / INDEX).read_text()
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script>|javascript:", page)
    for path in FOLDER.iterdir():
        text = path.read_text()
        hosts = set(re.findall(r"(?:https?|wss?)://([^/\s\"'`)]+)", text))
        assert hosts <= {"www.w3.org", "voice.example.org"}, path.name
        assert "innerHTML" not in text, path.name
        assert not re.search(r"\beval\(|new Function", text), path.name


def test_imports_lead_to_files_that_are_served() -> None:
    """Every module that is imported, and every address in the page, is one of the list."""
    for path in FOLDER.glob("*.js"):
        for name in re.findall(r"from \"\./([^\"]+)\"|URL\(\"\./([^\"]+)\"", path.read_text()):
            assert (name[0] or name[1]) in CONTENT_TYPES, path.name
    for name in re.findall(r"(?:href|src)=\"console/([^\"]+)\"", (FOLDER / INDEX).read_text()):
        assert name in CONTENT_TYPES
