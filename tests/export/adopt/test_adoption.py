"""Networks from tutorials, studies and threads become artifacts whose answers are theirs."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.adopt.adoption import adopt
from export.adopt.network import as_input
from export.adopt.pictures import generate
from export.adopt.scores import Scores
from export.adopt.source import load_network
from export.exporter import Destination
from export.format.artifact import read_artifact
from export.format.errors import ArtifactError
from export.inspect import explain
from tests.export.adopt.adopting import (
    EXAMPLES,
    Adopted,
    adopt_class,
    adopt_in,
    answers,
    request,
    sampled,
)
from tests.export.adopt.networks import Tutorial, regression


def pictures(name: str, count: int = 16) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    example = EXAMPLES[name]
    return generate(*example.size, example.channels)[:count]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_adopted_network_answers_as_it_did(name: str, adopted: Adopted) -> None:
    artifact = adopted(name)
    manifest = artifact.manifest
    weights = artifact.folder.parents[2] / "net.pt"
    network = load_network(f"tests.export.adopt.networks:{name}", weights)
    images = pictures(name)
    raw = network(as_input(images, request(weights.parent, name).normalisation)).detach()
    wanted = raw.numpy()
    if manifest.task == "classification":
        wanted = (raw if name == "Signs" else raw.softmax(dim=1)).numpy()
    np.testing.assert_allclose(answers(artifact, images)[manifest.outputs[0]], wanted, atol=1e-5)


@pytest.mark.parametrize("name", EXAMPLES)
def test_theta_says_where_the_rectified_image_comes_from(name: str, adopted: Adopted) -> None:
    artifact = adopted(name)
    images = pictures(name)
    found = answers(artifact, images)
    first = artifact.manifest.transforms[0]
    theta = found[first.theta]
    assert np.ptp(theta, axis=0).max() > 0.01, "every picture has another theta"
    wanted, within = sampled(images, theta, (first.height, first.width))
    assert within.mean() > 0.3
    assert np.abs(found[first.rectified].astype(int) - wanted)[within].max() <= 1


def test_parity_with_the_tutorial_is_proven_without_an_affine_grid(adopted: Adopted) -> None:
    artifact = adopted("Tutorial")
    assert artifact.manifest.parity.probabilities < 1e-6
    assert artifact.manifest.parity.parameters < 1e-5
    operators = {node.op_type for node in onnx.load_model_from_string(artifact.model).graph.node}
    assert "AffineGrid" not in operators
    assert "GridSample" in operators


def test_the_manifest_says_how_the_network_samples(adopted: Adopted) -> None:
    (tutorial,) = adopted("Tutorial").manifest.transforms
    (cluttered,) = adopted("Cluttered").manifest.transforms
    (cifar,) = adopted("Cifar").manifest.transforms
    first, second = adopted("Signs").manifest.transforms
    assert [t.sampling and t.sampling.align_corners for t in (tutorial, cluttered, cifar)] == [False, True, True]
    assert [t.sampling and t.sampling.grid for t in (tutorial, cifar)] == ["affine_grid", "by hand"]
    assert (cluttered.height, cluttered.width) == (28, 28)
    assert [t.sampling and t.sampling.padding for t in (first, second)] == ["border", "zeros"]
    assert [t.sampling and t.sampling.grid_align_corners for t in (first, second)] == [True, True]
    assert [(t.branch, t.step, t.reads) for t in (first, second)] == [(1, 1, "picture"), (1, 2, "features")]


def test_an_adopted_artifact_is_an_ordinary_one(adopted: Adopted) -> None:
    artifact = read_artifact(adopted("Tutorial").folder)
    images, expected = artifact.golden()
    assert len(images) == 4
    for name, wanted in answers(artifact, images).items():
        np.testing.assert_allclose(wanted.astype(float), expected[name], atol=1)
    manifest = artifact.manifest
    assert manifest.accuracy is None
    assert manifest.recipe["name"] == "tests.export.adopt.networks:Tutorial"
    assert json.loads(manifest.model_dump_json())["transforms"][0]["sampling"]["mode"] == "bilinear"


def test_an_adopted_artifact_is_explained(adopted: Adopted, capsys: pytest.CaptureFixture[str]) -> None:
    for name, said in (("Plates", "raw output"), ("Tutorial", "class probabilities")):
        explain(adopted(name), 4)
        assert f"adopted from tests.export.adopt.networks:{name}" in (shown := capsys.readouterr().out)
        assert said in shown
        assert "not measured" in shown


def test_the_golden_pictures_are_samples_if_there_are_some(tmp_path: Path, adopted: Adopted) -> None:
    from PIL import Image

    folder = tmp_path / "samples" / "three"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("not a picture")
    levels = np.random.default_rng(0).integers(0, 256, (56, 28), dtype=np.uint8)
    Image.fromarray(levels).save(folder / "one.png")
    images, _ = adopt_in(tmp_path, request(tmp_path, "Tutorial", samples=tmp_path / "samples")).golden()
    resized = np.asarray(Image.fromarray(levels).resize((28, 28), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(images[0, :, :, 0], resized)
    assert len(images) == 1


def test_a_sequence_is_not_a_classifier_and_the_cure_works(tmp_path: Path, adopted: Adopted) -> None:
    from tests.export.adopt.adopting import write_classes

    wanted = request(tmp_path, "Plates", task="classification", classes=write_classes(tmp_path, 68))
    with pytest.raises(ArtifactError, match=r"not a classifier: .*\(68, 18\).*--task features"):
        adopt_in(tmp_path, wanted)
    assert not (tmp_path / "models").exists()
    manifest = adopted("Plates").manifest
    assert manifest.outputs == ("output", "theta", "rectified")
    assert manifest.answers()["output"].shape == (68, 18)


class Chained(nn.Module):
    """Two transformers in a row, each built for another convention."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Sequential(nn.Flatten(), regression(784)) for _ in range(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(20 * 20, 10))
        generator = torch.Generator().manual_seed(0)
        for network in (self.one, self.two):
            network[1].weight.data = torch.randn(6, 784, generator=generator) / 784
            network[1].bias.data = torch.tensor([0.7, 0.1, 0.05, -0.1, 0.7, 0.02])
        self.head[1].weight.data = torch.randn(10, 400, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        grid = functional.affine_grid(self.one(x).view(-1, 2, 3), [len(x), 1, 28, 28], align_corners=True)
        x = functional.grid_sample(x, grid, align_corners=True)
        grid = functional.affine_grid(self.two(x).view(-1, 2, 3), [len(x), 1, 20, 20], align_corners=False)
        scores: Tensor = self.head(functional.grid_sample(x, grid, align_corners=False))
        return scores


def test_the_maps_of_two_transformers_in_a_row_are_composed(tmp_path: Path) -> None:
    artifact = adopt_class(tmp_path, Chained)
    one, two = artifact.manifest.transforms
    assert [(t.branch, t.step, t.parameters != t.theta) for t in (one, two)] == [(1, 1, False), (1, 2, True)]
    images = generate(28, 28, 1)
    found = answers(artifact, images)
    wanted, within = sampled(images, found[two.theta], (20, 20))
    gaps = np.abs(found[two.rectified].astype(int) - wanted)[within]
    assert gaps.mean() < 3, "sampled twice, the image is a little softer"
    last = np.broadcast_to([[[0, 0, 1]]], (len(images), 1, 3))
    outer, inner = (np.concatenate([found[name], last], axis=1) for name in (one.theta, two.parameters))
    np.testing.assert_allclose((outer @ inner)[:, :2], found[two.theta], atol=1e-5)


class Parallel(Chained):
    """Two transformers of the same picture."""

    def forward(self, x: Tensor) -> Tensor:
        views = [
            functional.grid_sample(
                x, functional.affine_grid(look(x).view(-1, 2, 3), [len(x), 1, 20, 20], align_corners=False), mode=mode,
                padding_mode="reflection", align_corners=False,
            )
            for look, mode in ((self.one, "bilinear"), (self.two, "bicubic"))
        ]  # fmt: skip
        scores: Tensor = self.head(views[0]) + self.head(views[1])
        return scores


def test_transformers_of_the_same_picture_are_branches(tmp_path: Path) -> None:
    one, two = adopt_class(tmp_path, Parallel).manifest.transforms
    assert [(t.branch, t.step, t.reads) for t in (one, two)] == [(1, 1, "picture"), (2, 1, "picture")]
    assert [t.sampling and t.sampling.mode for t in (one, two)] == ["bilinear", "bicubic"]
    assert two.theta == two.parameters == "theta_2"


class Raw(Tutorial):
    """The tutorial with raw logits, in float64, and theta beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.double()

    def forward(self, x: Tensor) -> dict[str, object]:  # type: ignore[override]
        return {"scores": super().forward(x), "about": ("text", None), "picture": x[:, :1]}


def test_float64_is_converted_and_one_of_several_outputs_chosen(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"several tensors: scores, picture; .*--output"):
        adopt_class(tmp_path, Raw)
    with pytest.raises(ArtifactError, match="returns no 'logits'; --output can be one of scores, picture"):
        adopt_class(tmp_path, Raw, output="logits")
    manifest = adopt_class(tmp_path, Raw, output="scores", scores=Scores.log_softmax).manifest
    assert manifest.outputs == ("probabilities", "theta", "rectified")


def test_an_existing_version_is_kept(tmp_path: Path, adopted: Adopted) -> None:
    artifact = adopted("Tutorial")
    folder = artifact.folder.parents[2]
    with pytest.raises(ArtifactError, match="--force"):
        adopt(request(folder, "Tutorial"), Destination(folder / "models", "mine", 1))
    assert read_artifact(artifact.folder).manifest == artifact.manifest
