"""Models of lower precision, and their cost.

With float16, localisation networks and classifier compute in half precision. With int8, the convolutions and linear
layers of the classifier on which no grid depends are quantised statically, calibrated on validation pictures. Grid and
sampler always compute in float32: float16 coordinates are too coarse for large pictures, and a quantised localisation
network moved corners by pixels (docs/use/artifacts.md).
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from export.format.errors import ArtifactError
from export.format.golden import Outputs
from export.format.manifest import Precision, Price, Tolerance
from export.graph import INPUT, ServedNetwork, Signature, ends_linearly
from export.parity import Model
from training.networks.spatial import SpatialTransformer

TOLERANCES: dict[Precision, Tolerance] = {
    "float32": Tolerance(probabilities=1e-3, parameters=1e-3, rectified=2),
    "float16": Tolerance(probabilities=5e-2, parameters=1e-2, rectified=32),
    "int8": Tolerance(probabilities=1e-1, parameters=1e-3, rectified=2),
}
"""Allowed differences from the recorded golden outputs; kernels of low precision round differently on each device."""
CALIBRATION_PICTURES = 1024
CALIBRATION_BATCH = 64
BATCH = 256
TIMED_BATCH = 64
ROUNDS = 15
CORNERS = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], np.float64)
"""Corners of the rectified image in homogeneous coordinates."""


class Half(nn.Module):
    """Computes a part of the network in float16; the network converts back to float32 where it needs that."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part.half()

    def forward(self, view: Tensor) -> Tensor:
        """Run the part on ``view`` of any precision; the result is float16."""
        answer: Tensor = self.part(view.half())
        return answer


class HalfLocalisation(nn.Module):
    """Computes a localisation network in float16, except for its last layer, whose offset is the identity."""

    def __init__(self, localisation: nn.Sequential) -> None:
        super().__init__()
        self.body = Half(localisation[:-1])
        self.head = localisation[-1]

    def forward(self, view: Tensor) -> Tensor:
        """Run the network on ``view``; the result is float32."""
        answer: Tensor = self.head(self.body(view).float())
        return answer


def in_half(network: ServedNetwork) -> ServedNetwork:
    """Return a copy of ``network`` whose localisation networks and classifier compute in float16."""
    copy = deepcopy(network)
    inner = copy.network
    transforms = [*inner.transforms, *([inner.feature_transform] if inner.feature_transform is not None else [])]
    for transform in transforms:
        transform.localisations = nn.ModuleList(once_each(transform))
    inner.classifier.stages = nn.ModuleList(Half(stage) for stage in inner.classifier.stages)
    inner.classifier.head = Half(inner.classifier.head)
    return copy.eval()


def once_each(transform: SpatialTransformer) -> list[nn.Module]:
    """Return the localisation networks of ``transform`` in half precision; shared networks stay shared."""
    halves = {
        network: HalfLocalisation(network) if ends_linearly(network) else Half(network)
        for network in transform.localisations
    }
    return [halves[network] for network in transform.localisations]


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Batches of pictures from which ONNX Runtime measures the range of each activation."""

    def __init__(self, pictures: NDArray[np.uint8]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = iter(
            [pictures[start : start + CALIBRATION_BATCH] for start in range(0, len(pictures), CALIBRATION_BATCH)]
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next batch, or None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def quantise(content: bytes, pictures: NDArray[np.uint8], signature: Signature) -> bytes:
    """Quantise an ONNX model to int8 weights and activations, calibrated on ``pictures`` ``(N, H, W, C)``.

    Raises:
        ArtifactError: no layer can be quantised.
    """
    model = onnx.load_from_string(content)
    layers = quantisable(model, signature)
    if not layers:
        raise ArtifactError("the grid depends on every layer of this model, so none can be quantised; use fp16")
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # its advice to optimise first does not apply: torch.onnx has optimised the model
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            quantize_static(
                model,
                file,
                Calibration(pictures[:CALIBRATION_PICTURES]),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=layers,
            )
            quantised = onnx.load(file)
    finally:
        log.setLevel(level)
    used = {node.domain for node in quantised.graph.node}
    for entry in [entry for entry in quantised.opset_import if entry.domain not in used]:
        quantised.opset_import.remove(entry)
    del quantised.metadata_props[:]
    smaller: bytes = quantised.SerializeToString()
    return smaller


def quantisable(model: onnx.ModelProto, signature: Signature) -> list[str]:
    """Return the names of the convolutions and linear layers on which no grid, theta or parameter depends."""
    makers = {output: node for node in model.graph.node for output in node.output}
    waiting = [node.input[1] for node in model.graph.node if node.op_type == "GridSample"]
    waiting += [name for t in signature.transforms for name in (t.theta, t.parameters)]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in seen and name in makers:
            waiting += makers[name].input
        seen.add(name)
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm") and not seen.intersection(node.output)
    ]


def measure_price(
    before: Model,
    after: Model,
    signature: Signature,
    pictures: NDArray[np.uint8],
    labels: NDArray[np.int64],
    bytes_before: int,
) -> tuple[Price, float]:
    """Compare ``after`` with ``before`` on test ``pictures`` ``(N, H, W, C)``; return its price and accuracy.

    ``labels`` are ``(N,)``, or ``(N, T)`` of sequences.
    """
    right_before = right_after = 0
    worst, corner_gaps = 0.0, []
    for start in range(0, len(pictures), BATCH):
        batch, wanted = pictures[start : start + BATCH], labels[start : start + BATCH]
        expected, found = before(batch), after(batch)
        one, other = expected[signature.outputs[0]], found[signature.outputs[0]]
        right_before += int((one.argmax(axis=-1) == wanted).sum())
        right_after += int((other.argmax(axis=-1) == wanted).sum())
        worst = max(worst, float(np.abs(one - other).max()))
        corner_gaps += [corner_gap(expected, found, t.theta, signature) for t in signature.transforms]
    gaps = np.concatenate(corner_gaps)
    price = Price(
        accuracy_before=right_before / labels.size,
        probabilities=worst,
        corners_px=float(gaps.max()),
        corners_mean_px=float(gaps.mean()),
        bytes_before=bytes_before,
        speed=speed_ratio(before, after, pictures[np.arange(TIMED_BATCH) % len(pictures)]),
        speed_batch=TIMED_BATCH,
    )
    return price, right_after / labels.size


def corner_gap(expected: Outputs, found: Outputs, theta: str, signature: Signature) -> NDArray[np.float64]:
    """Return the distances between two outputs' corners of a rectified image: ``(N, 4)`` in pixels of the input."""
    gap = (expected[theta].astype(np.float64) - found[theta]) @ CORNERS.T  # (N, 2, 4), normalised
    half_sides = np.array([[signature.input.width / 2], [signature.input.height / 2]])
    distances: NDArray[np.float64] = np.hypot(*np.moveaxis(gap * half_sides, 1, 0))
    return distances


def speed_ratio(before: Model, after: Model, pictures: NDArray[np.uint8]) -> float:
    """Return the speed of ``after`` relative to ``before``: medians of interleaved rounds."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for model, taken in zip((before, after), seconds, strict=True):
            started = time.perf_counter()
            model(pictures)
            taken.append(time.perf_counter() - started)
    return statistics.median(seconds[0][1:]) / statistics.median(seconds[1][1:])  # the first one warms up
