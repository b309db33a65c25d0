"""What cannot be proven is refused with the reason and the cure, and nothing is written."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from export.adopt.adoption import Request
from export.adopt.network import Normalisation
from export.adopt.scores import Scores
from export.adopt.source import load_network
from export.format.errors import ArtifactError
from tests.export.adopt.adopting import adopt_class, adopt_in, request, write_classes
from tests.export.adopt.networks import Tutorial, regression


class Small(nn.Module):
    """A network of ten classes and a transformer, to be spoilt."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Flatten(), regression(784))
        self.head = nn.Linear(784, 10)
        self.register_buffer("seen", torch.zeros(()))

    def straighten(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(self.look(x).view(-1, 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.straighten(x).flatten(1)) * 5
        return scores


class AlwaysDrops(Small):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x))


class NormalisesBatches(Small):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(super().forward(x), None, None, training=True)


class Untracked(Small):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x))


class Trains(Small):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        self.train()
        return super().forward(self.norm(x))


class Counts(Small):
    seen: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return super().forward(x) + self.seen


class Decides(Small):
    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max() >= 0:
            return super().forward(x)
        return super().forward(-x)


class FixedBatch(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(1, -1, 28, 28).squeeze(0).view(16, 1, 28, 28))


class Merges(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).view(1, -1)


class Bends(Small):
    def straighten(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(self.look(x).view(-1, 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid + 0.1 * torch.sin(3 * grid), align_corners=False)


class Volume(Small):
    def straighten(self, x: Tensor) -> Tensor:
        theta = torch.eye(3, 4).expand(x.size(0), 3, 4) + self.look(x).mean() * 0
        grid = F.affine_grid(theta, [x.size(0), 1, 2, 28, 28], align_corners=False)
        return F.grid_sample(x[:, :, None].expand(-1, -1, 2, -1, -1), grid, align_corners=False)[:, :, 0]


class Plain(Small):
    def straighten(self, x: Tensor) -> Tensor:
        return x * self.head.bias.sum()


class Shuffles(Small):
    def straighten(self, x: Tensor) -> Tensor:
        return super().straighten(x.transpose(2, 3))


class Sigmoid(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


class Binary(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :1]


class Infinite(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0


class Nothing(Small):
    def forward(self, x: Tensor) -> None:  # type: ignore[override]
        self.straighten(x)


class Linear(Small):
    """Ends in an operator that no exporter knows."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(torch.eye(10) + super().forward(x)[:, :, None])


class Autocast(Small):
    def straighten(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().straighten(x)


REFUSED: dict[type[nn.Module], str] = {
    AlwaysDrops: "dropout or noise is active.*training=self.training",
    NormalisesBatches: "fails for some numbers of pictures.*batch normalisation must not train",
    Untracked: "depends on the other pictures of its batch",
    Trains: "forward changes norm.running_mean",
    Counts: "forward changes seen|differs when the same pictures are sent again",
    Decides: "decides by the values.*test_refusals.py.*torch.where",
    FixedBatch: "one row for each picture|invalid for input",
    Merges: "needs one row for each picture",
    Bends: "not affine: it is up to .* pixels",
    Volume: r"volumes \(N, C, D, H, W\)",
    Plain: "no grid_sample.*export.compose",
    Shuffles: "place in the picture is unknown, because .*transpose",
    Sigmoid: "as those of a sigmoid.*--task features",
    Binary: "single score",
    Infinite: "not finite.*--mean and --std",
    Nothing: "returns no tensor",
    Linear: "torch.onnx cannot export",
    Autocast: "inside autocast",
}


@pytest.mark.parametrize("network", REFUSED, ids=lambda network: network.__name__)
def test_a_network_that_cannot_be_proven_is_refused(network: type[nn.Module], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=REFUSED[network]) as refused:
        adopt_class(tmp_path, network)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "models").exists()


class InPlace(Small):
    """Changes its input in place, remembers theta, and uses names that an artifact uses."""

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2).sub_(1)
        self.theta = self.look(x)
        return super().forward(x)


def test_changes_in_place_and_remembered_tensors_are_no_obstacle(tmp_path: Path) -> None:
    assert adopt_class(tmp_path, InPlace).manifest.parity.probabilities < 1e-5


def needs_arguments(classes: int) -> nn.Module:
    return Small()


def returns_text() -> str:
    return "a network"


def breaks() -> nn.Module:
    raise RuntimeError("no GPU is here\nand more")


NUMBER = 3
HERE = "tests.export.adopt.test_refusals"
FACTORIES = {
    "Tutorial": "write module:name",
    ":Net": "write module:name",
    "no_such_module_anywhere:Net": "no module 'no_such_module_anywhere'; run this command in its folder",
    "no_such_file.py:Net": "no file no_such_file.py",
    "study.ipynb:Net": "nbconvert",
    f"{HERE}:Absent": "has no 'Absent'; it has .*Small",
    f"{HERE}:NUMBER": "is int; name a class, a function or a network",
    f"{HERE}:needs_arguments": "needs no arguments",
    f"{HERE}:returns_text": "returns str",
    f"{HERE}:breaks": r"raised RuntimeError: no GPU is here \(test_refusals.py:\d+\)",
}


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_factory_that_makes_no_network_is_refused(factory: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=FACTORIES[factory]):
        adopt_in(tmp_path, request(tmp_path, "Tutorial", factory=factory))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('no data set')", "raised ValueError: no data set .net.py:1."),
        ("import sys; sys.exit(2)", "raised SystemExit: 2"),
        ("import no_such_library", "No module named 'no_such_library'"),
        ("def (", "SyntaxError"),
    ],
)
def test_a_module_that_fails_at_its_import_is_refused(code: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(code)
    with pytest.raises(ArtifactError, match=message):
        adopt_in(tmp_path, request(tmp_path, "Tutorial", factory=f"{tmp_path / 'net.py'}:Net"))


def test_a_file_finds_the_modules_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("from tests.export.adopt.networks import Tutorial\n")
    (tmp_path / "net.py").write_text("import beside_it\nprint('hello')\nNet = beside_it.Tutorial\n")
    torch.save(Tutorial().state_dict(), tmp_path / "net.pt")
    assert isinstance(load_network(f"{tmp_path / 'net.py'}:Net", tmp_path / "net.pt"), Tutorial)


def whole_pickle(file: Path) -> None:
    torch.save(Tutorial(), file)


def scripted(file: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), file)


def damaged(file: Path) -> None:
    torch.save(Tutorial().state_dict(), file)
    file.write_bytes(file.read_bytes()[:-5000])


def two_of_them(file: Path) -> None:
    weights = Tutorial().state_dict()
    torch.save({"teacher": weights, "student": weights}, file)


def of_another(file: Path) -> None:
    torch.save(Small().state_dict(), file)


def too_few(file: Path) -> None:
    weights = Tutorial().state_dict()
    del weights["fc2.bias"], weights["fc1.weight"]
    torch.save(weights, file)


def another_shape(file: Path) -> None:
    torch.save(Tutorial().state_dict() | {"fc2.weight": torch.zeros(43, 50)}, file)


def diverged(file: Path) -> None:
    torch.save(Tutorial().state_dict() | {"fc2.bias": torch.full((10,), torch.nan)}, file)


WEIGHTS: dict[Callable[[Path], object], str] = {
    whole_pickle: "a pickle, which would run code; save its weights alone",
    scripted: "TorchScript, which contains code",
    damaged: "damaged",
    two_of_them: r"several state dicts \(teacher, student\)",
    of_another: "of another network: they lack .* and also have .*look",
    too_few: "they lack fc1.weight, fc2.bias; name the factory",
    another_shape: r"fc2.weight is \(43, 50\), not \(10, 50\)",
    diverged: "not finite: fc2.bias",
    Path.mkdir: "cannot read .*Is a directory",
    lambda file: file.write_text("hello"): "pickle|damaged",
    lambda file: torch.save([1, 2], file): "no state dict",
    lambda file: file.unlink(missing_ok=True): "cannot read .*No such file",
}


@pytest.mark.parametrize("write", WEIGHTS, ids=lambda write: write.__name__)
def test_weights_that_are_not_the_networks_are_refused(write: Callable[[Path], object], tmp_path: Path) -> None:
    wanted = request(tmp_path, "Tutorial", weights=tmp_path / "others.pt")
    write(wanted.weights)
    with pytest.raises(ArtifactError, match=WEIGHTS[write]):
        adopt_in(tmp_path, wanted)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_a_checkpoint_with_an_optimiser_and_wrapped_names_is_read(prefix: str, tmp_path: Path) -> None:
    weights = {f"{prefix}{name}": value for name, value in Tutorial().state_dict().items()}
    torch.save({"epoch": 3, "model_state_dict": weights, "optimizer": {"state": {}}}, tmp_path / "net.pt")
    network = load_network("tests.export.adopt.networks:Tutorial", tmp_path / "net.pt")
    assert torch.equal(network.state_dict()["fc2.bias"], weights[f"{prefix}fc2.bias"])


def in_float64_and_parallel() -> nn.Module:
    torch.set_default_dtype(torch.float64)
    return nn.DataParallel(Tutorial())


def test_a_factory_that_changes_the_default_type_or_wraps_its_network_is_unwrapped(tmp_path: Path) -> None:
    torch.save(nn.DataParallel(Tutorial()).state_dict(), tmp_path / "net.pt")
    network = load_network(f"{HERE}:in_float64_and_parallel", tmp_path / "net.pt")
    assert isinstance(network, Tutorial)
    assert torch.get_default_dtype() is torch.float32
    assert {value.dtype for value in network.parameters()} == {torch.float32}


def changed(tmp_path: Path, **changes: object) -> Request:
    return request(tmp_path, "Tutorial")._replace(**changes)  # type: ignore[arg-type]


def test_what_does_not_fit_the_network_is_refused(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"size": (32, 32)}, "size 32x32 --channels 1|one row for each picture"),
        ({"channels": 3, "normalisation": Normalisation((0.5,) * 3, (0.5,) * 3)}, "expected input.*to have 1 channels"),
        ({"normalisation": Normalisation((0.5,) * 3, (0.5,))}, "--mean has 3 numbers for 1 channels"),
        ({"normalisation": Normalisation((0.5,), (0.0,))}, "std must be above 0"),
        ({"normalisation": Normalisation((float("nan"),), (1.0,))}, "out of range"),
        ({"classes": None}, "--classes FILE; .*--task features"),
        ({"classes": write_classes(tmp_path / "", 9)}, "10 classes, and --classes names 9"),
        ({"scores": Scores.softmax}, "not a softmax"),
        ({"samples": tmp_path / "nowhere"}, "no pictures"),
        ({"task": "features"}, "leave out --classes"),
    ]
    for changes, message in cases:
        wanted = changed(tmp_path, **changes)
        if changes.get("classes", wanted.classes) is not None and "classes" not in changes:
            write_classes(tmp_path, 10)
        elif "classes" in changes and changes["classes"] is not None:
            write_classes(tmp_path, 9)
        with pytest.raises(ArtifactError, match=message):
            adopt_in(tmp_path, wanted)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one\n\nthree", "line 2 of .* is empty"),
        ("one\ntwo\none", "line 3 of .* repeats 'one'"),
        ("one\n\n", "names 1 classes"),
        ("one\n" + "x" * 1001, "line 2 of .* is too long"),
    ],
)
def test_a_wrong_list_of_classes_is_refused_by_line(text: str, message: str, tmp_path: Path) -> None:
    wanted = request(tmp_path, "Tutorial")
    assert wanted.classes is not None
    wanted.classes.write_text(text)
    with pytest.raises(ArtifactError, match=message):
        adopt_in(tmp_path, wanted)


def test_a_damaged_sample_is_named(tmp_path: Path) -> None:
    from training.errors import DataError

    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / "one.png").write_bytes(b"\x89PNG\r\n\x1a\n" + np.zeros(50, np.uint8).tobytes())
    with pytest.raises(DataError, match=r"one\.png"):
        adopt_in(tmp_path, request(tmp_path, "Tutorial", samples=folder))
