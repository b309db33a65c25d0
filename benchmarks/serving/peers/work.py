"""What every peer does for a picture, as its documentation's examples do such things: Pillow, ONNX Runtime, NumPy.

Needs nothing of stn-serve: peers run in an environment of their own. The artifact's folder is in ARTIFACT.
"""

import base64
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

TOP_K = 5


class Work:
    """A model, and the way from bytes to an answer."""

    def __init__(self) -> None:
        folder = Path(os.environ["ARTIFACT"])
        manifest = json.loads((folder / "manifest.json").read_text())
        self.input = manifest["input"]
        self.classes: list[str] = manifest["classes"]
        transform = manifest["transforms"][0]
        self.outputs = [manifest["probabilities"], transform["theta"], transform["rectified"]]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])

    def decode(self, body: bytes) -> NDArray[np.uint8]:
        """``(H, W, C)``."""
        image = Image.open(io.BytesIO(body)).convert("L" if self.input["channels"] == 1 else "RGB")
        size = (self.input["width"], self.input["height"])
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(self.input["height"], self.input["width"], self.input["channels"])

    def infer(self, pictures: Sequence[NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """The answers to a batch."""
        probabilities, theta, rectified = self.session.run(self.outputs, {self.input["name"]: np.stack(pictures)})
        return [self.answer(*row) for row in zip(probabilities, theta, rectified, strict=True)]

    def answer(
        self, probabilities: NDArray[np.float32], theta: NDArray[np.float32], rectified: NDArray[np.uint8]
    ) -> dict[str, Any]:
        """The answer to one picture."""
        best = np.argsort(-probabilities)[:TOP_K]
        content = io.BytesIO()
        Image.fromarray(rectified.squeeze(-1) if rectified.shape[-1] == 1 else rectified).save(
            content, "PNG", compress_level=1
        )
        return {
            "predictions": [
                {"label": self.classes[index], "index": int(index), "probability": float(probabilities[index])}
                for index in best
            ],
            "theta": theta.tolist(),
            "rectified": {"format": "png", "data": base64.b64encode(content.getvalue()).decode()},
        }
