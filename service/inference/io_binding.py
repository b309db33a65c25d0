"""ONNX Runtime with inputs and outputs in buffers at fixed addresses, which CUDA graphs need.

A batch size is rounded up to a power of two. Each such bucket has its own buffers and its own captured graph. Rows
beyond the batch keep old content, which affects no other row.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export.format.artifact import Outputs

GRAPH = "gpu_graph_id"
"""Run option that selects the captured graph to replay."""
ELEMENTS = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


class BoundSession:
    """Runs a session in buckets. `run` is called by one thread at a time."""

    def __init__(self, session: Any, name: str, outputs: Sequence[str], device: str, *, graphs: bool) -> None:
        """``name`` is the name of the input. The buffers are on ``device``: ``cuda``, or ``cpu`` in tests."""
        self._graphs = graphs
        self._session = session
        self._name = name
        self._outputs = list(outputs)
        self._device = device
        self._buckets: dict[int, Bucket] = {}

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Map ``(N, H, W, C)`` to the outputs by name, with N rows each."""
        size = 1 << (len(images) - 1).bit_length()
        if size not in self._buckets:
            shape = (size, *images.shape[1:])
            self._buckets[size] = Bucket(
                self._session, self._name, self._outputs, self._device, shape, graph=self._graphs
            )
        return self._buckets[size].run(images)


class Bucket:
    """Buffers for up to N pictures of ``shape`` ``(N, H, W, C)``."""

    def __init__(
        self, session: Any, name: str, outputs: list[str], device: str, shape: tuple[int, ...], *, graph: bool
    ) -> None:
        self._session = session
        self._outputs = outputs
        self._images = np.zeros(shape, np.uint8)
        size = shape[0]
        self._input = onnxruntime.OrtValue.ortvalue_from_numpy(self._images, device, 0)
        shapes = {output.name: output.shape[1:] for output in session.get_outputs()}
        types = {output.name: ELEMENTS[output.type] for output in session.get_outputs()}
        self._answers = [
            onnxruntime.OrtValue.ortvalue_from_shape_and_type([size, *shapes[output]], types[output], device, 0)
            for output in outputs
        ]
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(name, self._input)
        for output, answer in zip(outputs, self._answers, strict=True):
            self._binding.bind_ortvalue_output(output, answer)
        self._options = onnxruntime.RunOptions()
        if graph:
            self._options.add_run_config_entry(GRAPH, str(size))

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """See `BoundSession.run`."""
        count = len(images)
        self._images[:count] = images
        self._input.update_inplace(self._images)
        self._session.run_with_iobinding(self._binding, self._options)
        # Copied, since on the CPU these are the buffers that the next batch overwrites.
        answers = [answer.numpy()[:count].copy() for answer in self._answers]
        return dict(zip(self._outputs, answers, strict=True))
