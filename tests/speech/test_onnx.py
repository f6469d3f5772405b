"""The door to onnxruntime."""

import pytest

from voice_agent.core.errors import ModelFileError
from voice_agent.settings.schema import Settings
from voice_agent.speech import onnx
from voice_agent.speech.models import find_models
from voice_agent.speech.onnx import OnnxModel, Signature, TensorShape
from voice_agent.speech.silero import SIGNATURE

SILERO = find_models(Settings())[-1].path


def complaint(**changed: dict[str, TensorShape]) -> str:
    """Open the Silero file under a changed signature and return the error's message."""
    signature = Signature(
        inputs={**SIGNATURE.inputs, **changed.get("inputs", {})},
        outputs={**SIGNATURE.outputs, **changed.get("outputs", {})},
    )
    with pytest.raises(ModelFileError) as caught:
        OnnxModel.open(SILERO, signature, setting="vad.model_path", remedy="do this")
    assert caught.value.field == "vad.model_path"
    assert caught.value.message.endswith("; do this")
    return caught.value.message


def test_names_types_and_dimensions_are_checked() -> None:
    """Each difference is named with what was found and what is needed."""
    assert "input sr is tensor(int64) [], not float32[]" in complaint(
        inputs={"sr": TensorShape("float32", ())}
    )
    assert "not float32[?, ?, ?]" in complaint(inputs={"input": TensorShape("float32", (None, None, None))})
    assert "not float32[2, ?, 64]" in complaint(inputs={"state": TensorShape("float32", (2, None, 64))})
    assert "not float32[?, ?]" in complaint(outputs={"output": TensorShape("float32", (None, None))})
    assert "it has no output words" in complaint(outputs={"words": TensorShape("float32", (None,))})


def test_all_differences_come_at_once() -> None:
    """An operator does not have to find them one by one."""
    message = complaint(inputs={"one": TensorShape("bool", ())}, outputs={"two": TensorShape("bool", ())})
    assert "it has no input one; it has no output two" in message


def test_an_open_length_may_be_relied_on() -> None:
    """What the file leaves open is not held against it."""
    signature = Signature(inputs=SIGNATURE.inputs, outputs={"stateN": TensorShape("float32", (2, None, 128))})
    OnnxModel.open(SILERO, signature, setting="vad.model_path", remedy="")


def test_models_run_on_the_thread_that_calls() -> None:
    """No pools of threads that we don't count, and nothing written to stderr behind our back."""
    options = onnx._session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.log_severity_level == 4
