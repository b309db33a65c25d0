"""A model without a transformer, over HTTP: it looks at the whole picture and rectifies nothing."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.format.artifact import pack_golden, seal, write_artifact
from export.onnx import OnnxRuntime
from export.parity import trained
from tests.conftest import Service, start_service
from tests.export.test_kinds import interface, pictures, served
from tests.networks import small
from tests.service.answers import predict
from tests.service.pictures import ARTIFACT, encode

WIDTH, HEIGHT = 61, 40
PICTURE = encode(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8))
WHOLE = [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]


def write_plain(folder: Path) -> None:
    """An untrained network without a transformer."""
    recipe = small(transformer="none")
    network, stated, images = served(recipe), interface(recipe), pictures(recipe, count=4)
    outputs = tuple(stated.outputs)
    model = OnnxRuntime().serialise(network, torch.from_numpy(images[:2]), outputs)
    golden = pack_golden(stated.input.name, images, trained(network, outputs)(images))
    change = {"transforms": stated.transforms, "input": stated.input, "outputs": outputs, "reference": None}
    change |= {"worth": None, "reliability": None}
    write_artifact(folder, *seal(ARTIFACT.manifest.model_copy(update=change), model, golden))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serves the plain model alone."""
    models = tmp_path_factory.mktemp("models")
    write_plain(models / "plain" / "1")
    with start_service("--models", models) as service:
        yield service


def test_an_answer_outlines_the_whole_picture(plain: Service) -> None:
    found = predict(plain, PICTURE)
    assert found["theta"] == [[1, 0, 0], [0, 1, 0]]
    assert found["corners"] == WHOLE
    assert (found["rectified"]["width"], found["rectified"]["height"]) == (28, 20)
    assert sum(each["probability"] for each in predict(plain, PICTURE, top_k=10)["predictions"]) == pytest.approx(1)


def test_a_region_is_outlined_whole(plain: Service) -> None:
    response = plain.client.post("/predict", params={"region": "10,5,40,25"}, files={"image": PICTURE})
    (found,) = response.json()["regions"]
    np.testing.assert_allclose(found["corners"], [[10, 5], [40, 5], [40, 25], [10, 25]])


def test_rectify_gives_the_picture_back(plain: Service) -> None:
    response = plain.client.post("/rectify", files={"image": PICTURE})
    assert response.status_code == 200
    expected, found = (np.asarray(Image.open(io.BytesIO(each))) for each in (PICTURE, response.content))
    np.testing.assert_array_equal(found, expected)


def test_its_corners_are_never_called_reliable(plain: Service) -> None:
    told = predict(plain, PICTURE, reliability=8)["reliability"]
    assert (told["angle"], told["score"]) == ("cannot tell", None)


def test_the_list_of_models_says_that_it_has_no_transformer(plain: Service) -> None:
    (model,) = plain.client.get("/models").json()["models"]
    assert [each["kind"] for each in model["transforms"]] == ["none"]
    assert model["worth"] is None


def test_the_open_inference_protocol_describes_the_same_outputs(plain: Service) -> None:
    told = plain.client.get("/v2/models/plain").json()
    assert [(each["name"], each["shape"]) for each in told["outputs"]] == [
        ("probabilities", [-1, 10]),
        ("theta", [-1, 2, 3]),
        ("rectified", [-1, 20, 28, 1]),
    ]
