"""Models come and go while 64 connections ask: nobody is refused, and nobody gets a mixture."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from export.format.artifact import Artifact, read_artifact
from service.middleware.api_keys import make_key
from tests.conftest import Service, start_service, wait_until
from tests.service import artifacts
from tests.service.answers import PICTURE, predict, well
from tests.service.pictures import DIGIT_MODEL, Answer, difference

KEY, ENTRY = make_key("operator")
HEADERS = {"X-API-Key": KEY}
CONNECTIONS = 64
SWAPS = 50
BASES: list[Artifact] = [read_artifact(DIGIT_MODEL / version) for version in ("2", "3")]
"""Trained apart, so that their theta and probabilities tell them from each other."""
TOLERANCE = 1e-3
PAUSE_S = 0.1
"""Between an answer and the next question on a connection: the test shares the machine with what it tests."""
SLOW_S = 0.5


class Expected(NamedTuple):
    """The answer of a base to the picture."""

    theta: Answer
    probability: float


class Asked(NamedTuple):
    """What the connections have seen: how many answers of which version, and what was wrong with others."""

    answers: Counter[int]
    wrong: list[str]

    def has_met(self, version: int) -> bool:
        """Or something was wrong, and waiting is over."""
        return self.answers[version] > 0 or bool(self.wrong)


def write_version(models: Path, version: int) -> None:
    """A version of the one base or the other, which says its number in its labels."""
    base = BASES[version % 2]
    classes = tuple(f"{version}-{label}" for label in base.manifest.classes)
    artifacts.write(models / "digits" / str(version), base.manifest.model_copy(update={"classes": classes}), base)


def fault(answer: Answer, expected: Mapping[int, Expected]) -> str | None:
    """What in ``answer`` is not of the version that it names."""
    version, best = answer["model"]["version"], answer["predictions"][0]
    theta, probability = expected[version % 2]
    if not best["label"].startswith(f"{version}-"):
        return f"version {version} answers with the label {best['label']}"
    if difference(np.array(answer["theta"]), np.array(theta)) > TOLERANCE:
        return f"theta is not that of version {version}"
    if abs(best["probability"] - probability) > TOLERANCE:
        return f"the probability is not that of version {version}"
    return None


async def ask(
    service: Service, until: asyncio.Event, expected: Mapping[int, Expected], asked: Asked, *, slowly: bool
) -> None:
    """Ask on one connection, which stays open, until told to stop.

    Who asks ``slowly`` sends the end of a picture only after a while, in which its model may have gone.
    """
    reader, writer = await asyncio.open_connection(*service.address)
    request = b"POST /predict?rectified=none HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE
    while not until.is_set():
        if slowly:
            writer.write(request[:-1])
            await asyncio.sleep(SLOW_S)
            writer.write(request[-1:])
        else:
            writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        if not head.startswith(b"HTTP/1.1 200 "):
            asked.wrong.append(f"{head!r} {answer}")
            break
        if wrong := fault(answer, expected):
            asked.wrong.append(wrong)
        asked.answers[answer["model"]["version"]] += 1
        await asyncio.sleep(PAUSE_S)
    writer.close()


async def swap(service: Service, models: Path, versions: range, asked: Asked) -> None:
    """Bring each version, ask for it to be loaded, and see that it is what is served when that is answered.

    Each stays until the others who ask have met it.
    """
    for version in versions:
        await asyncio.to_thread(write_version, models, version)
        loaded = await asyncio.to_thread(service.client.post, "/v2/repository/models/digits/load", headers=HEADERS)
        assert (loaded.status_code, loaded.content) == (200, b""), loaded.text
        served = await asyncio.to_thread(predict, service)
        assert served["model"]["version"] == version
        await asyncio.to_thread(wait_until, partial(asked.has_met, version))


async def swap_under_load(service: Service, models: Path, versions: range) -> Asked:
    both = {"parameters": {"config": json.dumps({"version_policy": {"specific": {"versions": [1, 2]}}})}}
    assert service.client.post("/v2/repository/models/digits/load", json=both, headers=HEADERS).status_code == 200
    expected = {}
    for version in (1, 2):
        answer = predict(service, model="digits", version=version)
        expected[version % 2] = Expected(answer["theta"], answer["predictions"][0]["probability"])
    assert difference(np.array(expected[0].theta), np.array(expected[1].theta)) > 10 * TOLERANCE
    asked, until = Asked(Counter(), []), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(CONNECTIONS):
            group.create_task(ask(service, until, expected, asked, slowly=number % 4 == 0))
        try:
            await swap(service, models, versions, asked)
        finally:
            until.set()
    return asked


@pytest.mark.parametrize(("workers", "swaps"), [(1, SWAPS), (2, 4)])
def test_no_answer_fails_or_is_mixed_while_models_are_swapped(workers: int, swaps: int, tmp_path: Path) -> None:
    for version in (1, 2):
        write_version(tmp_path, version)
    flags = ("--models", tmp_path, "--versions", "latest", "--admin-keys", ENTRY, "--workers", workers)
    with start_service(*flags) as service:
        versions = range(3, 3 + swaps)
        asked = asyncio.run(swap_under_load(service, tmp_path, versions))
        assert asked.wrong == []
        assert set(versions) <= asked.answers.keys() <= {2, *versions}
        well(service)
        kept = [(entry["version"], entry["state"]) for entry in index(service) if entry["state"] != "UNAVAILABLE"]
        assert kept == [(str(versions[-1]), "READY")], "the others are gone"


def index(service: Service) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = service.client.post("/v2/repository/index", headers=HEADERS).json()
    return entries
