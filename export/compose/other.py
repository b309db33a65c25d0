"""The other classifier: any ONNX file with one picture as its input."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from export.adopt.errors import quote
from export.format.errors import ArtifactError

SILENT = 4
AGAIN = "export it again with a symbolic batch size (dynamic_shapes or dynamic_axes)"


class Other(NamedTuple):
    """An ONNX classifier and the form of its input."""

    file: Path
    content: bytes
    session: onnxruntime.InferenceSession
    """Runs its file as it is."""
    model: onnx.ModelProto
    """Its graph, for any number of pictures."""
    input: str
    output: str
    channels: int
    last: bool
    """Whether channels are the last axis."""
    alone: bool
    """Whether its file takes one picture at a time."""

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores ``(N, K)`` for ``pixels`` ``(N, C, H, W)``, by the file as it is."""
        given = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if self.last else pixels
        parts = np.split(given, len(given)) if self.alone else [given]
        try:
            found = [self.session.run([self.output], {self.input: part})[0] for part in parts]
        except Exception as error:
            raise ArtifactError(f"{self.file} fails on a picture of this size: {quote(error)}; check --size") from error
        return np.concatenate(found)


def open_session(content: bytes, file: Path) -> onnxruntime.InferenceSession:
    """Load a model to run on the CPU.

    Raises:
        ArtifactError: ONNX Runtime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT  # the error below says the same
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(f"ONNX Runtime cannot run {file}: {quote(error)}") from error


def read_other(file: Path, name: str | None, output: str | None, size: tuple[int, int]) -> Other:
    """Read a classifier for pictures of ``size`` = (height, width).

    Args:
        file: the ONNX file.
        name: its input; may be left out if there is one.
        output: the output with the scores; may be left out if there is one.
        size: height and width of its pictures.

    Raises:
        ArtifactError: it is damaged, or not a classifier of one picture of that size.
    """
    model = load_whole(file)
    content = model.SerializeToString()
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in constants}
    if len(inputs) > 1:
        raise ArtifactError(f"{file} has several inputs ({', '.join(inputs)}); it must be a classifier of one picture")
    given = inputs[choose("--input", name, list(inputs), file)]
    outputs = {value.name: value for value in model.graph.output}
    scores = outputs[choose("--output", output, list(outputs), file)]
    tensor = given.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise ArtifactError(f"the input of {file} is {kind}; only classifiers of float32 pictures can be composed")
    shape = [dim.dim_value or None for dim in tensor.shape.dim]  # None: symbolic
    last = layout(shape, size, file)
    alone = shape[0] == 1
    for value in (given, scores):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]  # they may repeat a fixed batch size
    channels = shape[3] if last else shape[1]
    return Other(file, content, open_session(content, file), model, given.name, scores.name, channels or 3, last, alone)


def load_whole(file: Path) -> onnx.ModelProto:
    """Load a model with its external data, which `torch.onnx` writes beside it by default.

    Raises:
        ArtifactError: it is missing, damaged or too large for one file.
    """
    try:
        model = onnx.load(file)
        onnx.checker.check_model(model)
    except OSError as error:
        raise ArtifactError(f"cannot read {file}: {error.strerror or error}; name an ONNX file") from error
    except Exception as error:
        raise ArtifactError(f"{file} is damaged or not an ONNX model ({quote(error)}); export it again") from error
    return model


def choose(option: str, name: str | None, known: list[str], file: Path) -> str:
    """Return the input or output to use."""
    if name is None and len(known) == 1:
        return known[0]
    if name in known:
        return name
    said = "" if name is None else f", and no {name!r}"
    raise ArtifactError(f"{file} has {', '.join(known) or 'nothing'}{said}; name one with {option}")


def layout(shape: list[int | None], size: tuple[int, int], file: Path) -> bool:
    """Return whether channels are the last axis of an input of this shape.

    Raises:
        ArtifactError: it is not a picture of ``size``, or of a fixed number of pictures.
    """
    if len(shape) != 4:
        raise ArtifactError(f"the input of {file} has {len(shape)} axes; a picture has 4: (N, C, H, W) or (N, H, W, C)")
    if shape[0] is not None and shape[0] != 1:
        raise ArtifactError(f"{file} takes {shape[0]} pictures at a time; {AGAIN}")
    for last in (False, True):
        *_, channels, height, width = [shape[0], shape[3], shape[1], shape[2]] if last else shape
        fits = all(known in (None, wanted) for known, wanted in zip((height, width), size, strict=True))
        if channels in (1, 3) and fits:
            return last
    said = "x".join("?" if side is None else str(side) for side in shape)
    raise ArtifactError(
        f"the input of {file} is {said}, which is not a picture of --size {size[0]}x{size[1]} with 1 or 3 channels"
    )
