"""What can be tested of the buffers for CUDA graphs without a GPU: they answer as the session does without them."""

import numpy as np
import onnxruntime
import pytest

from service.inference.io_binding import BoundSession
from tests.service.pictures import ARTIFACT, MANIFEST, noise


@pytest.fixture(scope="module")
def bound() -> BoundSession:
    session = onnxruntime.InferenceSession(ARTIFACT.model_file, providers=["CPUExecutionProvider"])
    return BoundSession(session, MANIFEST.input.name, MANIFEST.outputs, "cpu", graphs=False)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 4, 1, 33])
def test_every_batch_gets_its_own_answers_whatever_the_buckets_held_before(bound: BoundSession, count: int) -> None:
    images = np.stack([noise(100 * count + index)[..., None] for index in range(count)])
    session = onnxruntime.InferenceSession(ARTIFACT.model_file, providers=["CPUExecutionProvider"])
    expected = session.run(list(MANIFEST.outputs), {MANIFEST.input.name: images})
    found = bound.run(images)
    assert list(found) == list(MANIFEST.outputs)
    for output, answer in zip(found.values(), expected, strict=True):
        assert output.dtype == answer.dtype
        tolerance = 1e-4 if answer.dtype.kind == "f" else 1
        np.testing.assert_allclose(output.astype(float), answer.astype(float), atol=tolerance)


def test_answers_stay_when_the_next_batch_comes(bound: BoundSession) -> None:
    first = bound.run(noise(1)[None, ..., None])
    kept = {name: output.copy() for name, output in first.items()}
    bound.run(noise(2)[None, ..., None])
    for name, output in first.items():
        np.testing.assert_array_equal(output, kept[name])
