import asyncio

import pytest

from service.server.fast_path import busy_poll
from service.server.fast_path.busy_poll import BusyPoll
from tests.service.loops import on_a_loop


class Watched(BusyPoll):
    """Counts how often it polls, by a clock that stands still until it is told otherwise."""

    def __init__(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(seconds)
        self.polls = 0
        self.time = 0.0
        monkeypatch.setattr(busy_poll, "perf_counter", lambda: self.time)

    def _poll(self) -> None:
        self.polls += 1
        super()._poll()

    async def polls_in(self, turns: int) -> int:
        """How often it polls in so many turns of the event loop."""
        before = self.polls
        for _ in range(turns):
            await asyncio.sleep(0)
        return self.polls - before


def test_after_an_answer_the_loop_turns_for_a_while_and_then_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    @on_a_loop
    async def test() -> None:
        watched = Watched(1.0, monkeypatch)
        for _ in range(3):
            watched.answered(range(1))
            assert await watched.polls_in(10) == 10
            watched.answered(range(0))
            watched.time += 0.9
            assert await watched.polls_in(10) == 10
            watched.time += 0.2
            assert await watched.polls_in(10) == 1

    test()


@pytest.mark.parametrize(("seconds", "answers", "in_progress"), [(1.0, 1, 2), (1.0, 2, 1), (0.0, 1, 1)])
def test_with_several_at_once_or_no_time_it_does_not(
    seconds: float, answers: int, in_progress: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @on_a_loop
    async def test() -> None:
        watched = Watched(seconds, monkeypatch)
        for _ in range(answers):
            watched.answered(range(in_progress))
        assert await watched.polls_in(10) <= 1

    test()
