"""Distortions of digits: random parameters are drawn first, then applied by pure functions.

Each distortion has two methods. ``draw`` takes a generator, so the same seed gives the same parameters; ``apply``
depends only on pictures, labels and parameters. Maps go from the canvas (output) to the original picture (input), in
the convention of `training.networks.geometry`. The problems are those of Jaderberg et al. 2015, appendix A;
"rot" is that of Larochelle et al. 2007.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from training.networks.geometry import (
    affine_points,
    base_grid,
    corner_points,
    projective_points,
    regular_grid,
    thin_plate_points,
    thin_plate_solver,
)
from training.networks.samplers import sample

Size = tuple[int, int]
"""Height and width in pixels."""
FRAGMENT = 6
"""Side of a fragment of clutter, in pixels."""


class Distorted(NamedTuple):
    """Distorted pictures."""

    images: Tensor
    """``(N, C, H, W)`` on the canvas, in the value range of the originals."""
    labels: Tensor
    """``(N,)``, or ``(N, T)`` if each picture shows T objects in a row."""
    maps: Tensor | None = None
    """``(N, 2, 3)`` from the canvas to the originals; None if the distortion is not an affine map."""
    placed: Tensor | None = None
    """``(N,)``: whether the picture's object was put on another picture; None if none was."""


class Distortion(Protocol):
    """A family of distortions onto a canvas."""

    def draw(self, count: int, picture: Size, generator: Generator) -> tuple[Tensor, ...]:
        """Draw parameters for ``count`` pictures of ``picture`` = (height, width) pixels, one row per picture."""

    def apply(self, images: Tensor, labels: Tensor, parameters: tuple[Tensor, ...]) -> Distorted:
        """Distort ``images`` ``(N, C, H, W)``; anything mixed in comes from the same batch."""


class Undistorted:
    """The pictures unchanged, centred on the canvas."""

    def __init__(self, canvas: Size) -> None:
        self.canvas = canvas

    def draw(self, count: int, picture: Size, generator: Generator) -> tuple[Tensor, ...]:
        still = torch.zeros(count)
        return (similarity_maps(still, still + 1, torch.zeros(count, 2), picture, self.canvas),)

    def apply(self, images: Tensor, labels: Tensor, parameters: tuple[Tensor, ...]) -> Distorted:
        if images.shape[-2:] == self.canvas:
            return Distorted(images, labels, parameters[0])
        return Distorted(warp_affine(images, parameters[0], self.canvas), labels, parameters[0])


class Placed:
    """Rotation, scale, and any position where the unrotated frame fits on the canvas. Parameters: maps (N, 2, 3).

    R: up to 90 degrees. Rot: any angle. RTS: up to 45 degrees and scale 0.7 to 1.2, on 42x42. T: shifts only, on 60x60.
    """

    def __init__(self, canvas: Size, rotation_deg: float, scale: tuple[float, float]) -> None:
        """Set the largest rotation in either direction, and the range of the scale factor."""
        self.canvas = canvas
        self.rotation_deg = rotation_deg
        self.scale = scale

    def draw(self, count: int, picture: Size, generator: Generator) -> tuple[Tensor, ...]:
        uniform = torch.rand(4, count, generator=generator)
        angle = (2 * uniform[0] - 1) * math.radians(self.rotation_deg)
        scale = self.scale[0] + (self.scale[1] - self.scale[0]) * uniform[1]
        free = torch.tensor(self.canvas) - scale[:, None] * torch.tensor(picture)  # (N, 2): rows, columns
        shift = (2 * uniform[2:].T - 1) * free.flip(1).clamp(min=0) / 2  # (N, 2): x, y
        return (similarity_maps(angle, scale, shift, picture, self.canvas),)

    def apply(self, images: Tensor, labels: Tensor, parameters: tuple[Tensor, ...]) -> Distorted:
        return Distorted(warp_affine(images, parameters[0], self.canvas), labels, parameters[0])


class Projected:
    """P: scale 0.75 to 1.0, then normal noise of 5 pixels on each corner. Parameters: maps (N, 3, 3).

    Corners that do not form a convex quadrilateral are drawn again.
    """

    def __init__(self, canvas: Size, scale: tuple[float, float] = (0.75, 1.0), noise: float = 5.0) -> None:
        """``noise`` is the standard deviation in pixels."""
        self.canvas = canvas
        self.scale = scale
        self.noise = noise

    def draw(self, count: int, picture: Size, generator: Generator) -> tuple[Tensor, ...]:
        scale = self.scale[0] + (self.scale[1] - self.scale[0]) * torch.rand(count, generator=generator)
        half_picture = torch.tensor([picture[1] / 2, picture[0] / 2])
        corners = corner_points() * half_picture * scale[:, None, None]  # (N, 4, 2) in pixels
        moved = corners + self.noise * torch.randn(count, 4, 2, generator=generator)
        while (folded := ~convex(moved)).any():
            again = self.noise * torch.randn(int(folded.sum()), 4, 2, generator=generator)
            moved[folded] = corners[folded] + again
        half_canvas = torch.tensor([self.canvas[1] / 2, self.canvas[0] / 2])
        return (homographies(moved / half_canvas, corner_points().expand(count, -1, -1)),)

    def apply(self, images: Tensor, labels: Tensor, parameters: tuple[Tensor, ...]) -> Distorted:
        base = base_grid(*self.canvas).to(images.device)
        return Distorted(sample(images, projective_points(parameters[0].to(images), base)), labels)


class Elastic:
    """E: scale 0.75 to 1.0, and a thin-plate spline whose 4 x 4 control points are moved by normal noise.

    Parameters: positions of the control points in the picture, (N, 16, 2).
    """

    def __init__(self, canvas: Size, scale: tuple[float, float] = (0.75, 1.0), noise: float = 1.5) -> None:
        """``noise`` is the standard deviation in pixels."""
        self.canvas = canvas
        self.scale = scale
        self.noise = noise
        self.control = regular_grid(4)

    def draw(self, count: int, picture: Size, generator: Generator) -> tuple[Tensor, ...]:
        scale = self.scale[0] + (self.scale[1] - self.scale[0]) * torch.rand(count, generator=generator)
        noise = self.noise * torch.randn(count, len(self.control), 2, generator=generator)
        half_picture = torch.tensor([picture[1] / 2, picture[0] / 2])
        half_canvas = torch.tensor([self.canvas[1] / 2, self.canvas[0] / 2])
        return ((self.control * half_canvas + noise) / scale[:, None, None] / half_picture,)

    def apply(self, images: Tensor, labels: Tensor, parameters: tuple[Tensor, ...]) -> Distorted:
        control = self.control.to(images.device)
        coefficients = thin_plate_solver(self.control).to(images.device) @ parameters[0].to(images)
        base = base_grid(*self.canvas).to(images.device)
        return Distorted(sample(images, thin_plate_points(coefficients, control, base)), labels)


class Cluttered:
    """TC: any whole-pixel position, among 6x6 fragments of other digits (6 on 60x60; TC-84: 16 on 84x84).

    Parameters: maps (N, 2, 3); the fragments' source digits as fractions of the batch (N, F); and the upper left corner
    of each fragment, in its source and on the canvas, as fractions of the available space (N, F, 4).
    """

    def __init__(self, canvas: Size, fragments: int) -> None:
        """Set the canvas and the number of fragments."""
        self.canvas = canvas
        self.fragments = fragments

    def draw(self, count: int, picture: Size, generator: Generator) -> tuple[Tensor, ...]:
        free = torch.tensor([self.canvas[1] - picture[1], self.canvas[0] - picture[0]])
        place = (torch.rand(count, 2, generator=generator) * (free + 1)).floor()  # x, y of the upper left corner
        still = torch.zeros(count)
        maps = similarity_maps(still, still + 1, place - free / 2, picture, self.canvas)
        sources = torch.rand(count, self.fragments, generator=generator)
        return maps, sources, torch.rand(count, self.fragments, 4, generator=generator)

    def apply(self, images: Tensor, labels: Tensor, parameters: tuple[Tensor, ...]) -> Distorted:
        maps, sources, corners = parameters
        canvas = warp_affine(images, maps, self.canvas)
        add_fragments(canvas, images, sources, corners, FRAGMENT)
        return Distorted(canvas, labels, maps)


class InRow:
    """Several digits in a row among 8 fragments of 9x9 pixels; the labels ``(N, digits)`` are read from left to right.

    This is the task of Sønderby et al. 2015 as their program makes it: the digits stand side by side, from a random
    place on, and each lies up to half a digit above or below the one before, but always within the canvas.

    Parameters: rows and columns of the digits' upper left pixels (N, digits, 2); the sources of all digits but the
    first as fractions of the batch (N, digits - 1); the fragments' as in `Cluttered`.
    """

    def __init__(self, canvas: Size, digits: int, fragments: int = 8, side: int = 9) -> None:
        """Set the canvas, the number of digits, and the number of fragments and their side in pixels."""
        self.canvas = canvas
        self.digits = digits
        self.fragments = fragments
        self.side = side

    def draw(self, count: int, picture: Size, generator: Generator) -> tuple[Tensor, ...]:
        height, width = picture
        free = self.canvas[0] - height, self.canvas[1] - self.digits * width
        uniform = torch.rand(3, count, 1, generator=generator)
        position = torch.arange(self.digits)
        top = (uniform[0] * self.canvas[0] + (uniform[1] - 0.5) * height * position).clamp(0, free[0]).floor()
        left = (uniform[2] * (free[1] + 1)).floor() + width * position
        others = torch.rand(count, self.digits - 1, generator=generator)
        sources = torch.rand(count, self.fragments, generator=generator)
        corners = torch.rand(count, self.fragments, 4, generator=generator)
        return torch.stack([top, left], dim=2), others, sources, corners

    def apply(self, images: Tensor, labels: Tensor, parameters: tuple[Tensor, ...]) -> Distorted:
        places, others, sources, corners = parameters
        count = len(images)
        chosen = torch.cat([torch.arange(count)[:, None], (others * count).long()], dim=1)  # (N, digits)
        canvas = images.new_zeros(count, images.shape[1], *self.canvas)
        for position in range(self.digits):
            paste(canvas, images[chosen[:, position]], places[:, position].long())
        add_fragments(canvas, images, sources, corners, self.side)
        return Distorted(canvas, labels[chosen])


class Addition:
    """Two digits in one channel each, distorted independently; the label is their sum.

    Parameters: the maps of both digits, (N, 2, 3) each, and the second digit's source as a fraction of the batch (N,).
    """

    def __init__(self, each: Placed) -> None:
        """``each`` is the distortion of either digit."""
        self.each = each

    def draw(self, count: int, picture: Size, generator: Generator) -> tuple[Tensor, ...]:
        first, second = (self.each.draw(count, picture, generator)[0] for _ in range(2))
        return first, second, torch.rand(count, generator=generator)

    def apply(self, images: Tensor, labels: Tensor, parameters: tuple[Tensor, ...]) -> Distorted:
        first, second, partner = parameters
        other = (partner * len(images)).long()
        channels = [
            warp_affine(digits, maps, self.each.canvas) for digits, maps in ((images, first), (images[other], second))
        ]
        return Distorted(torch.cat(channels, dim=1), labels + labels[other])


def make_distortion(name: str, canvas: Size, objects: int = 0) -> Distortion:
    """Return the distortion with this name for ``canvas``; ``objects`` is the number of digits of a sequence."""
    rts = Placed(canvas, 45, (0.7, 1.2))
    made: dict[str, Callable[[], Distortion]] = {
        "none": lambda: Undistorted(canvas),
        "r": lambda: Placed(canvas, 90, (1, 1)),
        "rot": lambda: Placed(canvas, 180, (1, 1)),
        "rts": lambda: rts,
        "t": lambda: Placed(canvas, 0, (1, 1)),
        "p": lambda: Projected(canvas),
        "e": lambda: Elastic(canvas),
        "tc": lambda: Cluttered(canvas, 6),
        "tc84": lambda: Cluttered(canvas, 16),
        "addition": lambda: Addition(rts),
        "sequence": lambda: InRow(canvas, objects),
    }
    return made[name]()


def warp_affine(images: Tensor, maps: Tensor, canvas: Size) -> Tensor:
    """Sample ``images`` ``(N, C, H, W)`` through ``maps`` ``(N, 2, 3)`` onto black canvases: ``(N, C, h, w)``."""
    base = base_grid(*canvas).to(images.device)
    return sample(images, affine_points(maps.to(images), base))


def paste(canvas: Tensor, pieces: Tensor, first: Tensor) -> None:
    """Draw ``pieces`` ``(N, C, h, w)`` on ``canvas`` ``(N, C, H, W)`` where they are brighter.

    ``first`` ``(N, 2)`` are row and column of their upper left pixels.
    """
    rows, columns = (first[:, axis, None] + torch.arange(pieces.shape[2 + axis]) for axis in range(2))
    place = torch.arange(len(canvas))[:, None, None], slice(None), rows[:, :, None], columns[:, None, :]
    canvas[place] = torch.maximum(canvas[place], pieces.permute(0, 2, 3, 1))


def add_fragments(canvas: Tensor, images: Tensor, sources: Tensor, corners: Tensor, side: int) -> None:
    """Draw fragments of other digits on ``canvas``, ``side`` pixels high and wide; the parameters are `Cluttered`'s."""
    count, _, height, width = images.shape
    room = torch.tensor([height, width, *canvas.shape[2:]]) - side + 1
    first = (corners * room).long()  # (N, F, 4): rows and columns of the first pixel, in the digit and on the canvas
    others = 1 + (sources * (count - 1)).long()  # offset within the batch, never the digit itself
    span = torch.arange(side)
    for piece in range(sources.shape[1]):
        rows, columns = (first[:, piece, axis, None] + span for axis in range(2))
        source = ((torch.arange(count) + others[:, piece]) % count)[:, None, None]
        fragment = images[source, :, rows[:, :, None], columns[:, None, :]]  # (N, side, side, C)
        paste(canvas, fragment.permute(0, 3, 1, 2), first[:, piece, 2:])


def similarity_maps(angle: Tensor, scale: Tensor, shift: Tensor, picture: Size, canvas: Size) -> Tensor:
    """Return maps that rotate, scale and shift a picture on a canvas.

    Args:
        angle: ``(N,)`` radians, clockwise as seen.
        scale: ``(N,)``, above 1 for larger.
        shift: ``(N, 2)`` from the canvas' centre to the picture's, (x, y) in pixels.
        picture: height and width in pixels.
        canvas: height and width in pixels.

    Returns:
        ``(N, 2, 3)`` from the canvas to the picture.
    """
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    linear = torch.stack([cosine, sine, -sine, cosine], dim=-1).view(-1, 2, 2)  # canvas -> picture, in pixels
    offset = -linear @ shift[:, :, None]  # (N, 2, 1)
    half_picture = torch.tensor([picture[1] / 2, picture[0] / 2])  # (2,): x, y
    half_canvas = torch.tensor([canvas[1] / 2, canvas[0] / 2])
    return torch.cat([linear * half_canvas, offset], dim=-1) / half_picture[:, None]


def convex(corners: Tensor) -> Tensor:
    """Return whether quadrilaterals are convex and clockwise: ``(N, 4, 2)`` in order -> ``(N,)``."""
    sides = corners.roll(-1, dims=1) - corners
    following = sides.roll(-1, dims=1)
    return (sides[..., 0] * following[..., 1] > sides[..., 1] * following[..., 0]).all(dim=1)


def homographies(origins: Tensor, targets: Tensor) -> Tensor:
    """Return the projective maps of four points to four others: ``(N, 4, 2)`` each -> ``(N, 3, 3)``."""
    x, y = origins.double().unbind(dim=-1)  # (N, 4)
    one, nothing = torch.ones_like(x), torch.zeros_like(x)
    rows = []
    for axis in range(2):
        target = targets.double()[..., axis]
        place = [x, y, one, nothing, nothing, nothing] if axis == 0 else [nothing, nothing, nothing, x, y, one]
        rows.append(torch.stack([*place, -x * target, -y * target], dim=-1))  # (N, 4, 8)
    right = targets.double().transpose(1, 2).flatten(1)  # (N, 8): all x, then all y
    solved = torch.linalg.solve(torch.cat(rows, dim=1), right)
    return torch.cat([solved, one[:, :1]], dim=1).view(-1, 3, 3).to(origins.dtype)
