"""Placement: training pictures are put on other pictures, at a known position, size, rotation and slant.

A picture whose object fills it teaches a transformer nothing about finding. Placed on a larger picture, among poles,
shadows and other objects, the same picture does, and since its map is known, theta can be told directly.
"""

import math
from typing import Self

import torch
from torch import Generator, Tensor
from torch.nn import functional

from training.data.augmentation import Jittered, linear_maps, relit
from training.data.distortions import Distorted
from training.data.folder.listing import is_picture, walk
from training.data.pictures import read_pictures
from training.data.weather import DRAWS as WEATHER_DRAWS
from training.data.weather import Weather
from training.errors import DataError
from training.networks.geometry import affine_points, base_grid
from training.networks.samplers import sample
from training.recipes.recipe import Placement, Recipe, Size

MOST_BACKGROUNDS = 4000
"""Number of backgrounds that are kept in memory."""
DRAWS = 47
"""Number of uniform numbers per picture."""
ROLL = 18
"""The number that decides whether a background is turned: the sixth of those for clutter, of which five are used."""
MASK_SHIFT = 0.3
"""Largest distance of a mask's centre from the object's in each direction, as a share of what surrounds the object."""
SHRUNK = 1.4
"""Pixels of the picture for each pixel of the canvas above which the picture is read at half size."""
RESOLUTIONS = (2, 3, 4)
"""Factors by which resolution is lost."""


def read_backgrounds(recipe: Recipe) -> Tensor | None:
    """Read the recipe's folder of backgrounds, at the size of its canvas: ``(B, C, H, W)`` uint8; None without one.

    Raises:
        DataError: the folder does not exist or has no pictures, or one cannot be read.
    """
    if recipe.backgrounds is None:
        return None
    if not recipe.backgrounds.is_dir():
        raise DataError(f"{recipe.backgrounds} is not a folder; name another one with --set backgrounds=FOLDER")
    files = [file for file in walk(recipe.backgrounds, []) if is_picture(file)]
    if not files:
        raise DataError(f"{recipe.backgrounds} has no pictures; name another folder with --set backgrounds=FOLDER")
    return read_pictures(files[:: -(-len(files) // MOST_BACKGROUNDS)], recipe.canvas, len(recipe.mean))


class OnBackgrounds:
    """Some pictures are placed on backgrounds; the others are augmented as they are.

    Parameters: maps ``(N, 2, 3)`` from the canvas to the picture; ``(N,)``: 1 for each picture that is placed, else
    0; maps ``(N, 2, 3)`` of the second objects; factors of contrast and brightness ``(N, 2)``; angles ``(N,)`` in
    radians by which backgrounds are turned; uniform numbers ``(N, DRAWS)`` for clutter and ``(N, WEATHER_DRAWS)``
    for weather; and maps ``(N, 2, 3)`` of the pictures if they are not placed after all.
    """

    def __init__(self, others: Jittered, placement: Placement, crop: float, backgrounds: Tensor | None) -> None:
        """Set the limits.

        Args:
            others: the augmentation of pictures that are not placed; its light applies to all.
            placement: the limits of placement.
            crop: share of the picture's sides that the object fills.
            backgrounds: ``(B, C, H, W)`` of the canvas' size; without, backgrounds are made of the corners of other
                pictures of the batch.
        """
        self.others = others
        self.canvas = others.canvas
        self.placement = placement
        self.crop = crop
        self.backgrounds = backgrounds
        self.weather = Weather(placement.weather)

    def draw(self, count: int, picture: Size, generator: Generator) -> tuple[Tensor, ...]:
        maps, light = self.others.draw(count, picture, generator)
        numbers = torch.rand(count, DRAWS, generator=generator)
        placed_share = (numbers[:, 0] < self.placement.chance).float()
        sizes = self._sizes(numbers[:, 1])
        placed, unplaced = self._maps(sizes, numbers[:, 2:7], picture), maps
        second = self._maps(self._sizes(numbers[:, 7]).clamp(max=0.8) * sizes.clamp(max=1), numbers[:, 8:13], picture)
        maps = torch.where(placed_share[:, None, None] > 0, placed, maps)
        # Nothing is drawn in vain, so that recipes without weather see the same pictures as before there was any.
        weather = torch.ones(count, WEATHER_DRAWS)
        if self.placement.weather:
            weather = torch.rand(count, WEATHER_DRAWS, generator=generator)
        roll = self._angles(numbers[:, 2]) * (numbers[:, ROLL] < self.placement.roll)
        return maps, placed_share, second, light, roll, numbers[:, 13:], weather, unplaced

    def spare(self, parameters: tuple[Tensor, ...], spared: Tensor) -> tuple[Tensor, ...]:
        """Return ``parameters`` by which the pictures ``spared`` ``(N,)`` are not placed."""
        maps, placed_share, *others, unplaced = parameters
        maps = torch.where(spared[:, None, None], unplaced, maps)
        return maps, placed_share.masked_fill(spared, 0), *others, unplaced

    def apply(self, images: Tensor, labels: Tensor, parameters: tuple[Tensor, ...]) -> Distorted:
        maps, placed_share, second, light, roll, numbers, weather, _ = (each.to(images) for each in parameters)
        is_placed = placed_share > 0
        clutter = numbers[:, :6] < self.placement.clutter
        draws = numbers[:, 6:]
        canvas = self.weather.fade(self._read(images, maps), weather)
        rows = torch.nonzero(is_placed)[:, 0]
        if len(rows):
            ground = self._grounds(images, rows, draws[rows, :4], roll[rows])
            crowded = torch.nonzero(clutter[rows, 0])[:, 0]
            if len(crowded):
                chosen = rows[crowded]
                other = self._read(images.roll(1, dims=0)[chosen], second[chosen])
                ground[crowded] = self._paste(ground[crowded], other, second[chosen], draws[chosen, 4:9].flip(1))
            canvas[rows] = self._paste(ground, canvas[rows], maps[rows], draws[rows, 4:9])
        for number, change in enumerate((self._pole, self._shadow, self._blur, self._coarse), start=1):
            chosen = torch.nonzero(clutter[:, number])[:, 0]
            if len(chosen):
                canvas[chosen] = change(canvas[chosen], draws[chosen, 5 + 4 * number : 9 + 4 * number])
        canvas = self.weather.shine(canvas, weather)
        casts = torch.exp(0.15 * (draws[:, -images.shape[1] :] - 0.5))[:, :, None, None]
        return Distorted(relit(canvas * casts, light), labels, maps, is_placed)

    def without_clutter(self) -> Self:
        """Return the same placement of every picture, without clutter."""
        tidy = self.placement.model_copy(update={"chance": 1.0, "clutter": 0.0, "weather": 0.0})
        return type(self)(self.others, tidy, self.crop, self.backgrounds)

    def _sizes(self, uniform: Tensor) -> Tensor:
        """Return the object's side as a share of the canvas, log-uniform."""
        limits = self.placement
        return limits.smallest * (limits.largest / limits.smallest) ** uniform

    def _angles(self, uniform: Tensor) -> Tensor:
        """Return the object's rotation on the canvas in radians."""
        return (2 * uniform - 1) * math.radians(self.placement.rotation)

    def _maps(self, sizes: Tensor, uniform: Tensor, picture: Size) -> Tensor:
        """Return maps from the canvas to a picture whose object has ``sizes`` ``(N,)``: ``(N, 2, 3)``."""
        limits = self.placement
        slant, stretch, right, down = (2 * uniform[:, 1:] - 1).unbind(dim=1)
        angle, shear = self._angles(uniform[:, 0]), torch.tan(slant * math.radians(limits.shear))
        scale = self.crop * min(picture) / (sizes * min(self.canvas))
        factor = limits.stretch ** (stretch / 2)
        linear = linear_maps(angle, shear, scale / factor, scale * factor)
        half_canvas = torch.tensor([self.canvas[1] / 2, self.canvas[0] / 2])
        half_picture = torch.tensor([picture[1] / 2, picture[0] / 2])
        free = (1 - sizes * (1 - 2 * limits.cut)).clamp(min=0.05)
        centre = torch.stack([right * free, down * free], dim=1) * half_canvas
        offset = -linear @ centre[:, :, None]
        return torch.cat([linear * half_canvas, offset], dim=-1) / half_picture[:, None]

    def _read(self, images: Tensor, maps: Tensor) -> Tensor:
        """Sample ``images`` through ``maps``; those that shrink much are read at half size, so that none aliases."""
        grid = affine_points(maps, base_grid(*self.canvas).to(images))
        found = sample(images, grid, "border")
        height, width = images.shape[-2:]
        pixels = torch.linalg.det(maps[:, :, :2]).abs().sqrt() * (height * width / math.prod(self.canvas)) ** 0.5
        rows = torch.nonzero(pixels > SHRUNK)[:, 0]
        if len(rows):
            halves = functional.interpolate(images[rows], (height // 2, width // 2), mode="area")
            found[rows] = sample(halves, grid[rows], "border")
        return found

    def _grounds(self, images: Tensor, rows: Tensor, uniform: Tensor, roll: Tensor) -> Tensor:
        """Return a background for each of ``rows``, cut and mirrored at random, and about as bright as its picture.

        ``roll`` are the angles by which they are turned, in radians.
        """
        if self.backgrounds is not None:
            pictures = self.backgrounds[(uniform[:, 0] * len(self.backgrounds)).long().cpu()].to(images)
            zoom = 0.6 + 0.4 * uniform[:, 1]
            places = (1 - zoom)[:, None] * (2 * uniform[:, 2:4] - 1)
        else:
            pictures = images.roll(1 + len(images) // 3, dims=0)[rows]
            zoom = 0.1 + 0.1 * uniform[:, 1]
            places = (1 - zoom[:, None]) * torch.where(uniform[:, 2:4] < 0.5, -1.0, 1.0)
        linear = linear_maps(roll, torch.zeros_like(roll), zoom, zoom)
        linear[:, 0] *= torch.where(uniform[:, 0] * 997 % 1 < 0.5, -1.0, 1.0)[:, None]  # mirrored
        side = linear.new_tensor([self.canvas[1], self.canvas[0]])
        maps = torch.cat([linear * (side / side[:, None]), places[:, :, None]], dim=-1)
        found = sample(pictures, affine_points(maps, base_grid(*self.canvas).to(images)), "reflection")
        wanted = images[rows].mean(dim=(1, 2, 3), keepdim=True)
        factor = (wanted / found.mean(dim=(1, 2, 3), keepdim=True).clamp(min=8)) ** uniform[:, 1, None, None, None]
        return (found * factor).clamp(0, 255)

    def _paste(self, ground: Tensor, placed: Tensor, maps: Tensor, uniform: Tensor) -> Tensor:
        """Blend pictures into backgrounds by superelliptic masks with hard to soft edges.

        A mask is not exactly around the object, so that its edge does not tell where the object is.
        """
        points = affine_points(maps, base_grid(*self.canvas).to(ground))
        aside = MASK_SHIFT * (1 - self.crop) * (2 * uniform[:, None, None, 3:5] - 1)
        height, width = ground.shape[-2:]
        pixel = 1 / torch.linalg.det(maps[:, :, :2]).abs().sqrt() * min(height, width) / 2  # per unit of the picture
        power = 2 * 5 ** uniform[:, 0, None, None]
        radius = self.crop * (1 + 0.35 * uniform[:, 1, None, None])
        softness = 0.5 * 10 ** uniform[:, 2, None, None] / pixel[:, None, None]  # 0.5 to 5 pixels of the canvas
        distance = ((points - aside).abs() + 1e-6).pow(power[..., None]).sum(dim=-1).pow(1 / power)  # (N, H, W)
        inside = torch.sigmoid((radius - distance) / softness)
        edge = torch.sigmoid((1 - points.abs().amax(dim=-1)) / (0.5 / pixel[:, None, None]))
        alpha = (inside * edge)[:, None]
        return alpha * placed + (1 - alpha) * ground

    def _lines(self, uniform: Tensor) -> Tensor:
        """Return the signed distance of all pixels from a random line near the centre: ``(N, 1, H, W)``."""
        angle = math.pi * 2 * uniform[:, 0, None, None]
        x, y = base_grid(*self.canvas).to(uniform).unbind(dim=-1)
        return (x * angle.cos() + y * angle.sin() - (uniform[:, 1, None, None] - 0.5))[:, None]

    def _pole(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Draw an evenly coloured pole across each picture."""
        width = 0.02 + 0.06 * uniform[:, 2, None, None, None]
        colour = 255 * uniform[:, 3, None, None, None] * torch.ones_like(images)
        return torch.where(self._lines(uniform).abs() < width, colour, images)

    def _shadow(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Darken one side of a line, with a hard to soft edge."""
        depth = 0.25 + 0.5 * uniform[:, 2, None, None, None]
        softness = 0.005 * 20 ** uniform[:, 3, None, None, None]
        return images * (1 - (1 - depth) * torch.sigmoid(self._lines(uniform) / softness))

    def _blur(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Blur, along a row, a column or both."""
        for number, side in enumerate(((1, 3), (3, 1), (3, 3), (5, 5))):
            rows = torch.nonzero((uniform[:, 2] * 4).long() == number)[:, 0]
            if len(rows):
                images[rows] = functional.avg_pool2d(
                    images[rows], side, 1, (side[0] // 2, side[1] // 2), count_include_pad=False
                )
        return images

    def _coarse(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Lose resolution."""
        for number, factor in enumerate(RESOLUTIONS):
            rows = torch.nonzero((uniform[:, 2] * len(RESOLUTIONS)).long() == number)[:, 0]
            if len(rows):
                small = functional.avg_pool2d(images[rows], factor, ceil_mode=True, count_include_pad=False)
                images[rows] = functional.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)
        return images
