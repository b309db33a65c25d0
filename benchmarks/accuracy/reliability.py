"""What reliability, averaged views and second looks are worth for a model, and what views cost.

    python -m benchmarks.accuracy.reliability models/digits/3 docs/results/digits-3 [--data-root data]
        [--backgrounds FOLDER] [--pictures 1000] [--second-look]

Prints the tables of docs/use/reliability.md, from test pictures under a known change: that of the recipe, or placed on
backgrounds as in training. RUN is what the artifact was exported from; its ``run.json`` is enough.
"""

import argparse
import asyncio
import io
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest

from export.format.artifact import Manifest, read_artifact
from export.onnx import OnnxRuntime
from export.parity import Model
from imaging.views import MOST_VIEWS, bring_back, corner_distance, make_views, region_side, view_maps
from service.inference.engine import Engine
from service.inference.views.options import ViewOptions
from service.inference.views.reliability import FOLLOWS, angle_differences
from service.repository.startup import load_models
from service.settings import load_settings
from training.evaluation.reliability import WITHIN, changes, error, show, true_thetas
from training.fitting.runs import Run

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

VIEWS = (4, 8, 16)
USUAL = 8
BATCH = 64
EDGES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.97, 1.0)
"""Bounds of the scores in the table."""
PATIENCE_S = 3600
REPEATS = 40


class Seen(NamedTuple):
    """What a model says of pictures."""

    probabilities: Floats
    """``(N, K)``."""
    thetas: Floats
    """``(N, 2, 3)``."""


class Again(NamedTuple):
    """What the service says of pictures with the option ``reliability``."""

    thetas: Floats
    """``(N, 2, 3)``."""
    scores: Floats
    """``(N,)``; NaN where the angle cannot be told."""
    taken: NDArray[np.bool_]
    """``(N,)``: whether a second look was taken."""


See = Callable[[Pixels], Seen]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--backgrounds", type=Path)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--second-look", action="store_true", help="measure it through the engine, and no more")
    options = parser.parse_args()
    artifact, run = read_artifact(options.artifact), Run(options.run)
    manifest, recipe = artifact.manifest, run.info().recipe
    if options.backgrounds is not None:
        recipe = recipe.model_copy(update={"backgrounds": options.backgrounds})
    if manifest.reliability is None:
        parser.error(f"{options.artifact} has no reliability; add it with python -m export.reference")
    see = seeing(OnnxRuntime().load(artifact.model, manifest.outputs), manifest)
    source = run.source(options.data_root)
    whole = source.test()
    chosen = torch.randperm(len(whole.labels), generator=torch.Generator().manual_seed(0))[: options.pictures]
    how, pictures = changes(recipe, whole.at(chosen))
    shown = show(how, pictures, 0)
    first = see(shown.pictures)
    true = true_thetas(lambda some: (see(some)[0].argmax(axis=1), see(some)[1]), recipe, how, pictures, shown.maps)
    right = error(first.thetas, true, shown.pictures) < WITHIN
    print(f"## {options.artifact}: {len(shown.labels):,} test pictures under a known change, {USUAL} views\n")
    if options.second_look:
        again = asyncio.run(look_again(options.artifact, shown.pictures))
        print_second_look(again, right, error(again.thetas, true, shown.pictures) < WITHIN)
        return
    views = [see(some) for some in all_views(shown.pictures)]
    height, width = shown.pictures.shape[1:3]
    maps = view_maps(MOST_VIEWS, width / height)
    gaps = [
        corner_distance(bring_back(maps[n], view.thetas), first.thetas, width, height) for n, view in enumerate(views)
    ]
    off = np.mean(gaps[:USUAL], axis=0) / np.maximum(region_side(first.thetas, width, height), 1e-9)
    scores = np.array([manifest.reliability.score(each) for each in off.tolist()])
    lost = np.array([not told for told in follows(first, views[:USUAL], maps[:USUAL], width, height)])
    scores[lost] = np.nan
    known = first.probabilities.argmax(axis=1) == shown.labels
    agreement = np.mean([view.probabilities.argmax(1) == first.probabilities.argmax(1) for view in views[:USUAL]], 0)
    print_scores(scores, right, known, agreement)
    print_averages(first, views, shown.labels)
    asyncio.run(print_costs(options.artifact, shown.pictures[0]))


def seeing(model: Model, manifest: Manifest) -> See:
    """What ``model`` says of pictures ``(N, H, W, C)``."""

    def see(pictures: Pixels) -> Seen:
        parts = [model(pictures[at : at + BATCH]) for at in range(0, len(pictures), BATCH)]
        names = manifest.probabilities, manifest.transforms[manifest.main].theta
        return Seen(*(np.concatenate([part[name] for part in parts]).astype(np.float64) for name in names))

    return see


def follows(first: Seen, views: list[Seen], maps: Floats, width: int, height: int) -> Iterator[bool]:
    """Whether the angle of each picture follows its views, as the service judges it."""
    for number, theta in enumerate(first.thetas):
        back = bring_back(maps, np.stack([view.thetas[number] for view in views]))
        turned = angle_differences(bring_back(maps, theta), theta, width, height).mean()
        yield bool(angle_differences(back, theta, width, height).mean() < FOLLOWS * turned)


def all_views(pictures: Pixels) -> Pixels:
    """All views of pictures ``(N, H, W, C)``: ``(views, N, H, W, C)``."""
    maps = view_maps(MOST_VIEWS, pictures.shape[2] / pictures.shape[1])
    return np.stack([make_views(picture, maps) for picture in pictures], axis=1)


def print_scores(scores: Floats, right: NDArray[np.bool_], known: NDArray[np.bool_], agreement: Floats) -> None:
    """Print how often the corners and the class are right, by score."""
    print("| score | pictures | mean score | corners right | class right | class the same in all views |")
    print("|---|---|---|---|---|---|")
    for low, high in pairwise(EDGES):
        chosen = (scores > low) & (scores <= high)
        if count := int(chosen.sum()):
            cells = (share(values[chosen]) for values in (scores, right, known, agreement == 1))
            print(f"| {low:g} to {high:g} | {count} | {' | '.join(cells)} |")
    chosen = np.isnan(scores)
    cells = (share(values[chosen]) for values in (right, known, agreement == 1))
    print(f"| null: cannot tell | {int(chosen.sum())} | | {' | '.join(cells)} |")
    scores = scores[~chosen]
    print(f"| all | {len(right)} | {' | '.join(share(v) for v in (scores, right, known, agreement == 1))} |\n")


def print_averages(first: Seen, views: list[Seen], labels: NDArray[np.intp]) -> None:
    """Print the accuracy of averaged probabilities."""
    print("| views | accuracy | only then right | only then wrong |")
    print("|---|---|---|---|")
    alone = first.probabilities.argmax(axis=1) == labels
    for count in (0, *VIEWS):
        total = first.probabilities + sum(view.probabilities for view in views[:count])
        found = total.argmax(axis=1) == labels
        print(f"| {count} | {share(found)} | {int((found & ~alone).sum())} | {int((alone & ~found).sum())} |")
    print()


async def look_again(artifact: Path, pictures: Pixels) -> Again:
    """What the service says of ``pictures`` ``(N, H, W, C)``, after a second look where it takes one."""
    settings = load_settings(["--models", str(artifact / read_artifact(artifact).manifest.model_file)], {})
    options = ViewOptions(reliability=USUAL)
    async with Engine(load_models(settings), settings) as engine:
        model = engine.find()
        answers = await engine.infer_parts(model, pictures, perf_counter() + PATIENCE_S, views=options)
    told = [answer.reliability for answer in answers if answer.reliability is not None]
    return Again(
        np.array([answer.output.transforms[model.manifest.main].theta for answer in answers]),
        np.array([np.nan if each.score is None else each.score for each in told]),
        np.array([each.second_look for each in told]),
    )


def print_second_look(again: Again, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> None:
    """Print whose corners are right before and after a second look, by the score of the first."""
    bins = {f"{low:g} to {high:g}": (again.scores > low) & (again.scores <= high) for low, high in pairwise(EDGES)}
    bins["null: cannot tell"] = np.isnan(again.scores)
    bins["all of these"] = np.ones(len(before), np.bool_)
    print("| score | pictures | mean score | right after the first look | after the second | more, fewer |")
    print("|---|---|---|---|---|---|")
    for name, chosen in bins.items():
        some = chosen & again.taken
        if some.any():
            told = again.scores[some & ~np.isnan(again.scores)]
            cells = f"{share(told) if len(told) else ''} | {share(before[some])} | {changed(before[some], after[some])}"
            print(f"| {name} | {some.sum():,} | {cells} |")
    print(f"| all pictures | {len(before):,} | | {share(before)} | {changed(before, after)} |")


async def print_costs(artifact: Path, picture: Pixels) -> None:
    """Print the processor time of answers with views, next to those without, in turns within one run."""
    settings = load_settings(["--models", str(artifact / read_artifact(artifact).manifest.model_file)], {})
    models = load_models(settings)
    content = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(content, "PNG")
    kinds = [ViewOptions(), *(ViewOptions(count, count) for count in VIEWS)]
    found = [0.0] * len(kinds)
    async with Engine(models, settings) as engine:
        model = engine.find()
        for _ in range(REPEATS):
            for place, kind in enumerate(kinds):
                started = process_time()
                await engine.predict(model, content.getvalue(), views=kind)
                found[place] += process_time() - started
    print("| views | processor time, as a multiple of none |")
    print("|---|---|")
    for kind, taken in zip(kinds, found, strict=True):
        print(f"| {kind.needed} | {taken / found[0]:.1f} |")


def changed(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> str:
    """What is right after a change, how many more and fewer, and the p-value of McNemar's exact test."""
    more, fewer = int((after & ~before).sum()), int((before & ~after).sum())
    chance = binomtest(more, more + fewer).pvalue if more + fewer else 1.0
    return f"{share(after)} | {more}, {fewer} (p = {chance:.2g})"


def share(values: NDArray[np.bool_] | Floats) -> str:
    """The mean of ``values`` as text."""
    return f"{values.mean():.1%}"


if __name__ == "__main__":
    main()
