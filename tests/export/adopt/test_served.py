"""Adopted networks behind the real service: the trained tutorial, and a licence-plate recogniser."""

# mypy: disable-error-code="no-untyped-call"

import base64
import io
import shutil
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from export.adopt.adoption import adopt
from export.adopt.network import Normalisation
from export.exporter import Destination
from tests.conftest import start_service
from tests.export.adopt.adopting import Adopted, request, sampled, write_weights
from tests.export.adopt.networks import Tutorial
from tests.small_runs import SMALL_MNIST

MEAN, STD = 0.1307, 0.3081


def trained(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Tutorial:
    """The tutorial's network after a moment of training."""
    torch.manual_seed(0)
    network = Tutorial()
    optimiser = torch.optim.AdamW(network.parameters(), 0.003)
    pixels, classes = (torch.from_numpy(images[:, None]).float() / 255 - MEAN) / STD, torch.from_numpy(labels).long()
    for _ in range(12):
        for chosen in torch.randperm(len(classes)).view(-1, 50):
            loss = functional.nll_loss(network(pixels[chosen]), classes[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network.eval()


@pytest.fixture(scope="module")
def client(adopted: Adopted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("adopted")
    wanted = request(folder, "Tutorial", normalisation=Normalisation((MEAN,), (STD,)))
    with np.load(SMALL_MNIST) as digits:
        write_weights(folder, trained(digits["train_images"], digits["train_labels"]))
    adopt(wanted, Destination(folder / "models", "tutorial"))
    shutil.copytree(adopted("Plates").folder.parent, folder / "models" / "plates")
    with start_service("--models", folder / "models") as service:
        yield service.client


def png(levels: NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(levels).save(content, "png")
    return content.getvalue()


def test_the_adopted_tutorial_reads_digits_and_says_where_it_looked(client: httpx.Client) -> None:
    with np.load(SMALL_MNIST) as digits:
        images, labels = digits["test_images"][:100], digits["test_labels"][:100]
    right = 0
    for levels, label in zip(images, labels, strict=True):
        answer = client.post("/predict?model=tutorial", content=png(levels)).json()
        right += answer["predictions"][0]["label"] == f"class {label}"
    assert right > 75
    theta = np.array([answer["theta"]], np.float32)
    rectified = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["rectified"]["data"]))))
    wanted, within = sampled(images[-1:, :, :, None], theta, (28, 28))
    assert np.abs(rectified.astype(int) - wanted[0, :, :, 0])[within[0, :, :, 0]].max() <= 1


def test_models_are_listed_with_what_is_known_about_them(client: httpx.Client) -> None:
    listed = {model["name"]: model for model in client.get("/models").json()["models"]}
    assert listed["tutorial"]["accuracy"] is None
    assert (listed["plates"]["task"], listed["plates"]["classes"]) == ("features", [])


def test_a_network_without_classes_answers_through_v2(client: httpx.Client) -> None:
    described = client.get("/v2/models/plates").json()["outputs"]
    assert [(output["name"], output["shape"]) for output in described] == [
        ("output", [-1, 68, 18]),
        ("theta", [-1, 2, 3]),
        ("rectified", [-1, 24, 94, 3]),
    ]
    levels = np.random.default_rng(0).integers(0, 256, (48, 188, 3), dtype=np.uint8)
    data = [base64.b64encode(png(levels)).decode()]
    body = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": data}]}
    outputs = client.post("/v2/models/plates/infer", json=body).json()["outputs"]
    assert {output["name"]: output["shape"] for output in outputs} == {
        "output": [1, 68, 18],
        "theta": [1, 2, 3],
        "rectified": [1, 24, 94, 3],
    }
    assert np.isfinite(outputs[0]["data"]).all()
    classified = body | {"outputs": [{"name": "output", "parameters": {"classification": 3}}]}
    assert "classifiers only" in client.post("/v2/models/plates/infer", json=classified).json()["error"]


@pytest.mark.parametrize("path", ["/predict?model=plates", "/predict/batch?model=plates"])
def test_a_network_without_classes_does_not_predict_and_the_error_names_the_way(
    path: str, client: httpx.Client
) -> None:
    picture = png(np.zeros((24, 94, 3), np.uint8))
    sent = {"files": {"images": ("one.png", picture)}} if "batch" in path else {"content": picture}
    answer = client.post(path, **sent)
    assert answer.status_code == 422
    assert "POST /v2/models/plates/infer" in answer.json()["error"]["message"]
