"""The queue in front of the process that shadows, and the process itself."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.rollout.messages import Compared, Job, Outcome
from service.rollout.shadow import MOST_BYTES, MOST_WAITING, TOGETHER, Limits, Offer, Shadow
from tests.service import artifacts
from tests.service.loops import on_a_loop
from tests.service.repository.test_repository import until
from tests.service.rollout.jobs import job, shown

OFFER = Offer(shown(), b"")


class Watched:
    """A shadow and what it said."""

    def __init__(self, given: Job) -> None:
        self.found: list[tuple[Outcome, bytes]] = []
        self.dropped: Counter[str] = Counter()
        self.busy = False
        limits = Limits(60, 60)
        self.shadow = Shadow(given, limits, lambda: self.busy, self.found.extend, self._drop)

    def _drop(self, reason: str, pictures: int) -> None:
        self.dropped[reason] += pictures


@asynccontextmanager
async def shadowing(models: Path) -> AsyncIterator[Watched]:
    watched = Watched(job(models))
    yield watched
    watched.shadow.close()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    artifacts.write(tmp_path / "digits" / "1")
    artifacts.write(tmp_path / "digits" / "2")
    return tmp_path


@on_a_loop
async def test_what_was_found_comes_back_with_its_file(models: Path) -> None:
    async with shadowing(models) as it:
        for number in range(5):
            it.shadow.offer(Offer(shown(), b"%d" % number))
        await until(lambda: len(it.found) == 5)
        assert all(isinstance(outcome, Compared) for outcome, _ in it.found)
        assert [file for _, file in it.found] == [b"0", b"1", b"2", b"3", b"4"]


@on_a_loop
async def test_pictures_are_dropped_while_live_ones_wait(models: Path) -> None:
    async with shadowing(models) as it:
        it.busy = True
        it.shadow.offer(OFFER)
        assert it.dropped == {"busy": 1}
        await asyncio.sleep(0)
        assert not it.found


@on_a_loop
async def test_no_more_pictures_and_bytes_wait_than_there_is_room_for(models: Path) -> None:
    async with shadowing(models) as it:
        it.shadow.offer(Offer(shown(), bytes(MOST_BYTES)))
        assert it.dropped == {"full": 1}
        for _ in range(MOST_WAITING + 2 * TOGETHER):  # the process has not started yet
            it.shadow.offer(OFFER)
        assert it.dropped["full"] > TOGETHER


@on_a_loop
async def test_versions_that_cannot_be_loaded_are_a_trouble_and_not_an_end(models: Path) -> None:
    async with shadowing(models) as it:
        good = (models / "digits" / "2").rename(models / "aside")
        it.shadow.offer(OFFER)
        await until(lambda: it.dropped["crashed"] >= 1)
        assert "there is no digits/2" in it.shadow.trouble
        good.rename(models / "digits" / "2")

        def compared() -> bool:
            it.shadow.offer(OFFER)
            return bool(it.found)

        await until(compared)
        assert not it.shadow.trouble
