"""The one door to onnxruntime: how a model is opened, what it must look like, and how it is run.

Everything runs on the thread that calls: parallel work comes from several calls at once, each in a worker thread of
ours, so onnxruntime's own pools are held to one thread and never spin.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import numpy.typing as npt
import onnxruntime

from voice_agent.core.errors import ModelFileError

Array = npt.NDArray[Any]

_LOG_FATAL_ONLY: Final = 4
"""Every lesser failure reaches us as an exception; logged as well, it would put raw lines between ours on stderr."""

_ELEMENT_TYPES: Final = {
    "float32": "tensor(float)",
    "int64": "tensor(int64)",
    "bool": "tensor(bool)",
}


@attrs.frozen
class TensorShape:
    """What one input or output must be: numpy's name of its elements, and its dimensions; None is a length that varies."""

    dtype: str
    dimensions: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join('?' if size is None else str(size) for size in self.dimensions)}]"


@attrs.frozen
class Signature:
    """The inputs and outputs that we use; a model may have further outputs, but no further inputs."""

    inputs: Mapping[str, TensorShape]
    outputs: Mapping[str, TensorShape]


class OnnxModel:
    """An opened model; several threads may run it at once."""

    def __init__(self, session: Any) -> None:
        self._session = session

    @classmethod
    def open(cls, path: Path, signature: Signature, *, setting: str, remedy: str) -> "OnnxModel":
        """Open the model at ``path`` and hold it to ``signature``.

        ``setting`` and ``remedy`` complete the error: which setting leads to this file, and what to do.

        Raises:
            ModelFileError: the file is no model, is damaged, or has other inputs or outputs.
        """
        session = _open(path, setting, remedy)
        wrong = _differences(session, signature)
        if wrong:
            raise ModelFileError(
                f"{setting}: {path} is another model than the one needed: {'; '.join(wrong)}; {remedy}",
                field=setting,
            )
        return cls(session)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        """Run once, on this thread, and return the outputs in the order asked for."""
        computed: list[Array] = self._session.run(outputs, inputs)
        return computed


def open_voice_session(path: Path, *, setting: str, remedy: str) -> Any:
    """Open a text-to-speech model for a library that runs it by itself; on the thread that calls, as everything here.

    Raises:
        ModelFileError: the file is no model, or is damaged.
    """
    return _open(path, setting, remedy)


def _open(path: Path, setting: str, remedy: str) -> Any:
    try:
        return onnxruntime.InferenceSession(str(path), _session_options(), providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelFileError(
            f"{setting}: {path} can't be loaded; it is damaged or no model ({reason}); {remedy}",
            field=setting,
        ) from error


def _session_options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = _LOG_FATAL_ONLY
    # Measured with two threads over clips of 1 to 13 s: the arena without memory patterns ends at 177 MB resident;
    # with patterns (one plan for each length that ever came) at 207 MB; without an arena at 222-240 MB with peaks
    # of 340 MB. CPU time is the same within the noise.
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = False
    return options


def _differences(session: Any, signature: Signature) -> list[str]:
    return [
        *_wrong_tensors("input", session.get_inputs(), signature.inputs),
        *_wrong_tensors("output", session.get_outputs(), signature.outputs),
        *(
            f"input {found.name} is unknown"
            for found in session.get_inputs()
            if found.name not in signature.inputs
        ),
    ]


def _wrong_tensors(kind: str, found: Sequence[Any], wanted: Mapping[str, TensorShape]) -> list[str]:
    by_name = {tensor.name: tensor for tensor in found}
    wrong = []
    for name, shape in wanted.items():
        tensor = by_name.get(name)
        if tensor is None:
            wrong.append(f"it has no {kind} {name}")
        elif tensor.type != _ELEMENT_TYPES[shape.dtype] or not _fits(tensor.shape, shape.dimensions):
            wrong.append(f"{kind} {name} is {tensor.type} {tensor.shape}, not {shape}")
    return wrong


def _fits(found: Sequence[Any], wanted: Sequence[int | None]) -> bool:
    """Compare dimensions: onnxruntime gives a number where the length is fixed, a name or None where it is open.

    A length that we vary must be open; one that we rely on must not be fixed to another number.
    """
    return len(found) == len(wanted) and all(
        not isinstance(size, int) or size == expected for size, expected in zip(found, wanted, strict=True)
    )
