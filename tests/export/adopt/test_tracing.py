"""Grids and thetas of many styles are traced to the same answers, or refused."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from export.adopt.checks import Chosen, try_out
from export.adopt.network import AdoptedNetwork, Normalisation, as_input, describe, image_input
from export.adopt.pictures import generate
from export.adopt.reference import untouched
from export.adopt.tracing import trace
from export.format.errors import ArtifactError
from export.parity import check, check_form, difference, trained

NORMALISATION = Normalisation((0.3,), (0.4,))


class Styled(nn.Module):
    """A network of ten classes whose sampling each style writes in its own way."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.look = nn.Sequential(nn.Flatten(), nn.Linear(784, 6))
        self.head = nn.Linear(784, 10)

    def sample(self, x: Tensor, theta: Tensor, shape: Sequence[int], align_corners: bool | None) -> Tensor:
        return F.grid_sample(x, F.affine_grid(theta, list(shape), align_corners), align_corners=align_corners)

    def straighten(self, x: Tensor) -> Tensor:
        return self.sample(x, self.look(x).view(-1, 2, 3), x.shape, None)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.straighten(x).flatten(1))


class Assigned(Styled):
    def straighten(self, x: Tensor) -> Tensor:
        found = self.look(x)
        theta = torch.zeros(x.size(0), 2, 3).to(x.device)
        theta[:, 0, 0] = theta[:, 1, 1] = 1 + found[:, 0] / 10
        theta[:, :, 2] = found[:, 1:3]
        return self.sample(x, theta, x.size(), False)


class Counted(Styled):
    def straighten(self, x: Tensor) -> Tensor:
        batch = int(x.size(0))
        shape = torch.Size((len(x), x.size(1), 28, 28))
        return self.sample(x, self.look(x).view(batch, 2, 3), shape, True)


class Numbered(Styled):
    def straighten(self, x: Tensor) -> Tensor:
        xs, ys = np.meshgrid(np.linspace(-1, 1, 28), np.linspace(-1, 1, 28))
        base = torch.from_numpy(np.stack([xs, ys, np.ones_like(xs)], -1).astype(np.float32)).view(-1, 3)
        grid = torch.einsum("mk,nik->nmi", base, self.look(x).view(-1, 2, 3)).reshape(x.shape[0], 28, 28, 2)
        return F.grid_sample(x, grid, align_corners=True)


class Shifted(Styled):
    """Moves a grid of affine_grid by hand, and samples pictures in [-1, 1]."""

    def straighten(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            grid = F.affine_grid(self.look(x).view(-1, 2, 3), list(x.shape), align_corners=True) * 0.9 + 0.05
        return F.grid_sample(x * 2 - 1, grid, mode="nearest", padding_mode="border", align_corners=False)


@pytest.mark.parametrize("style", [Styled, Assigned, Counted, Numbered, Shifted], ids=lambda style: style.__name__)
def test_a_style_is_traced_to_the_same_answers(style: type[Styled]) -> None:
    images = generate(28, 28, 1)[:6]
    network = style().eval()
    (answer,) = try_out(network, as_input(images, NORMALISATION))
    chosen = Chosen(network, {answer.name: answer.axis})
    traced = trace(chosen, as_input(images[:3], NORMALISATION))
    interface = describe(image_input(28, 28, 1), traced.places, [])
    served = AdoptedNetwork(traced, NORMALISATION, softmax=True).eval()
    wanted = untouched(chosen, traced.places, NORMALISATION, interface.outputs, softmax=True)(images)
    found = trained(served, tuple(interface.outputs))(images)
    check_form(wanted, found, len(images))
    check(difference(wanted, found, interface))


class Looped(Styled):
    def straighten(self, x: Tensor) -> Tensor:
        return torch.cat([super(Looped, self).straighten(x[n : n + 1]) for n in range(x.size(0))])


class Scripted(Styled):
    def __init__(self) -> None:
        super().__init__()
        self.scripted = torch.jit.script(sample_in_script)

    def straighten(self, x: Tensor) -> Tensor:
        return self.scripted(x, self.look(x).view(-1, 2, 3))


def sample_in_script(x: Tensor, theta: Tensor) -> Tensor:
    return torch.grid_sampler(x, torch.affine_grid_generator(theta, [x.size(0), 1, 28, 28], False), 0, 0, False)


@pytest.mark.parametrize(
    ("style", "message"),
    [(Looped, "no loop over the pictures"), (Scripted, "without torch.jit.script")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_style_that_fixes_more_than_it_says_is_refused(style: type[Styled], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        trace(Chosen(style().eval(), {"output": 0}), as_input(generate(28, 28, 1)[:3], NORMALISATION))
