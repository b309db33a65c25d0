"""A run: from an input, through the processes, to the parts of the output."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from tqdm import tqdm

from export.format.artifact import ArtifactError
from export.format.remote import is_url, public_url
from service.errors import InputError, ModelLoadError, OutputError
from service.inference.backends import cuda_obstacle
from service.inference.loading import digest
from service.repository.mirror import copy_at_start
from service.repository.startup import find_folders
from service.repository.trust import read_trusted
from service.repository.version_policy import read_references
from service.score.inputs import Selection, find_input, open_source
from service.score.parts import Parts
from service.score.rows import chunks
from service.score.scorer import ScoreOptions
from service.score.workers.workers import Scored, Workers
from service.settings import Settings

PART_ROWS = 8192
"""Rows of a part."""
QUIET_S = 30.0
"""Seconds between states of the progress bar where it is no terminal."""


class Run(NamedTuple):
    """What is to be scored, how, and where the answers go."""

    selection: Selection
    options: ScoreOptions
    out: Path
    limit: int | None = None
    """Most rows of the output, those of earlier runs included; None is all."""
    part_rows: int = PART_ROWS


class Outcome(NamedTuple):
    """What is in the output after a run."""

    rows: int
    errors: Counter[str]
    is_complete: bool
    """Whether these are all rows, or as many as the limit allows."""


def find_model(
    settings: Settings, reference: str, reliability: int = 0, *, rectified: bool = False
) -> tuple[str, int, str]:
    """Return name, version and digest of ``NAME`` or ``NAME/VERSION`` in the models folder.

    Raises:
        ModelLoadError: there is no such model, it cannot be read, or has no ``reliability`` to tell or
            no single ``rectified`` picture.
    """
    ((name, versions),) = read_references(reference).items()
    try:
        copy_at_start(settings)
        folders = find_folders(settings.models_folder)
        available = [version for other, version in folders if other == name]
        if not available or not {*versions} <= {*available}:
            there = ", ".join(f"{other}/{version}" for other, version in folders) or "none"
            raise ModelLoadError(f"there is no {reference} in {public_url(settings.models)}; there are: {there}")
        version = versions[0] if versions else max(available)
        artifact = read_trusted(folders[name, version], name, version, settings)
    except ArtifactError as error:
        raise ModelLoadError(str(error)) from error
    if reliability and artifact.manifest.task != "classification":
        raise ModelLoadError(f"--reliability needs a classifier, which {name} is not; leave it out")
    if (reliability or rectified) and artifact.manifest.shows_each:
        raise ModelLoadError(
            f"--reliability and --rectified are for one frame, and {name} has one for each object of a sequence; leave "
            "them out"
        )
    return name, version, digest(artifact)


def worker_settings(settings: Settings, reference: str, workers: int | None) -> tuple[Settings, int]:
    """Return the settings of each process of this machine and their number: by default one a core, or one on a GPU."""
    has_gpu = settings.device != "cpu" and cuda_obstacle() is None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = workers or (1 if has_gpu else cores)
    return share_settings(settings, reference, count, max(1, cores // count)), count


def share_settings(settings: Settings, reference: str, count: int, cores: int) -> Settings:
    """Return the settings of one of ``count`` processes, which has ``cores`` for itself."""
    changed = {
        "load": reference,
        "default": "",
        "workers": count,
        "threads": settings.threads or cores,
        "decode_threads": settings.decode_threads or cores,
        "drift_window": 0,
    }
    return settings.model_copy(update=changed)


def score(run: Run, workers: Workers, *, bar: bool = True) -> Outcome:
    """Score what is not scored yet, and return what is in the output then. The first signal to end stops it early.

    ``workers`` have the options of the run. With ``bar`` the progress is shown on stderr.

    Raises:
        ScoreError: the input cannot be read or the output cannot be written.
        StartError: the model cannot be loaded.
    """
    found = find_input(run.selection)
    with Parts(run.out, asked(run, found.kind, found.facts), run.part_rows) as parts:
        left = None if run.limit is None else run.limit - parts.rows
        if parts.is_complete or (left is not None and left <= 0):
            return Outcome(parts.rows, parts.errors, is_complete=True)
        source = open_source(found, run.selection, parts.listing)
        parts.begin()
        last = None if left is None else parts.next_row + left

        def total() -> int | None:
            known = source.total()
            return known if last is None else min(known or last, last)

        rows = islice(source.rows(parts.next_row), left)
        with stopping() as is_stopped:
            score_rows(workers.score(chunks(rows)), parts, total, is_stopped, bar=bar)
        if is_stopped():
            return Outcome(parts.rows, parts.errors, is_complete=False)
        if not parts.rows:
            raise InputError("no row of the input meets the conditions of --where; widen them")
        if run.limit is None or parts.rows < run.limit:
            parts.finish()
        return Outcome(parts.rows, parts.errors, is_complete=True)


def score_rows(
    answers: Iterator[Scored],
    parts: Parts,
    total: Callable[[], int | None],
    is_stopped: Callable[[], bool],
    *,
    bar: bool,
) -> None:
    """Take ``answers`` into ``parts``, until a signal stops it. Whatever ends it, the answers that came are written."""
    is_terminal = sys.stderr.isatty()
    with tqdm(
        initial=parts.next_row,
        total=total(),
        unit=" pictures",
        disable=not bar,
        mininterval=0.1 if is_terminal else QUIET_S,
        dynamic_ncols=is_terminal,
    ) as progress:
        try:
            for scored in answers:
                parts.add(scored.batch, scored.next_row)
                progress.total = total()
                progress.update(scored.next_row - progress.n)
                if is_stopped():
                    break
        except OutputError:
            raise
        except BaseException:
            parts.flush()
            raise
        parts.flush()


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl+C or SIGTERM came. A second one ends the process at once."""
    came: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def asked(run: Run, kind: str, facts: list[dict[str, str]]) -> dict[str, object]:
    """Return what decides about the output. A later run must ask for the same to go on."""
    selection, options = run.selection, run.options
    place = public_url(selection.place) if is_url(selection.place) else str(Path(selection.place).absolute())
    form = options.form
    rectified = None
    if options.rectified is not None:
        rectified = [str(options.rectified.absolute()), form.format, form.size, form.padding, form.margin]
    return {
        "input": place,
        "kind": kind,
        "files": facts,
        "column": selection.column,
        "root": selection.root and public_url(selection.root),
        "where": [str(condition) for condition in selection.conditions],
        "model": f"{options.name}/{options.version}",
        "digest": options.digest,
        "top_k": options.top_k,
        "reliability": options.reliability,
        "rectified": rectified,
    }
