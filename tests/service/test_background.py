"""Background tasks go on after failures, and calls that block are given up."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
import structlog

from service.background import (
    LOG_INTERVAL_S,
    LONGEST_PAUSE_S,
    MOST_ABANDONED,
    BlockingCalls,
    Failures,
    backoff_s,
    repeat,
)
from service.errors import NotReadyError
from tests.conftest import wait_until
from tests.service.loops import on_a_loop


@pytest.mark.parametrize(
    ("error", "traceback"), [(OSError(5, "Input/output error"), False), (ValueError("a defect"), True)], ids=str
)
@on_a_loop
async def test_a_task_goes_on_after_failures_which_are_logged_and_counted(error: Exception, traceback: bool) -> None:
    steps = 0
    failures = Failures()

    async def step() -> None:
        nonlocal steps
        steps += 1
        if steps <= 2:
            raise error

    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(repeat("task", step, 0.01, failures))
        while steps < 4:  # noqa: ASYNC110 - nothing else would tell
            await asyncio.sleep(0.01)
        task.cancel()
    assert failures.counts() == {"task": 2}
    assert [entry["event"] for entry in logs] == ["background_failure"], "the same failure is logged once"
    assert (logs[0]["exc_info"] is error) == traceback


def test_failures_of_another_kind_are_logged_each_and_the_same_one_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("service.background.time.monotonic", lambda: now)
    failures = Failures()
    with structlog.testing.capture_logs() as logs:
        for text in ("one", "one", "two"):
            failures.record("task", OSError(text))
        now = LOG_INTERVAL_S
        failures.record("task", OSError("two"))
    assert [entry["error"] for entry in logs] == ["one", "two", "two"]
    assert failures.counts() == {"task": 4}


def test_pauses_double_up_to_a_longest_which_never_shortens_what_was_asked_for() -> None:
    assert [backoff_s(1, failures) for failures in range(4)] == [1, 2, 4, 8]
    assert backoff_s(1, 1000) == LONGEST_PAUSE_S
    assert backoff_s(3600, 1000) == 3600


def block(until: threading.Event) -> Callable[[], bool]:
    return until.wait


@on_a_loop
async def test_a_call_that_blocks_is_given_up_and_the_next_one_runs() -> None:
    calls, forever = BlockingCalls("test"), threading.Event()
    with pytest.raises(TimeoutError):
        await calls.run_async(block(forever), 0.01)
    assert await calls.run_async(lambda: 5, 10) == 5
    forever.set()


@on_a_loop
async def test_a_call_that_waited_behind_one_that_blocks_is_given_up_too() -> None:
    calls, forever = BlockingCalls("test"), threading.Event()
    found = await asyncio.gather(*(calls.run_async(block(forever), 0.05) for _ in range(2)), return_exceptions=True)
    assert [type(error) for error in found] == [TimeoutError, TimeoutError]
    forever.set()
    assert await calls.run_async(lambda: 5, 10) == 5


def test_calls_that_block_do_not_pile_up() -> None:
    calls, forever = BlockingCalls("test"), threading.Event()
    for _ in range(MOST_ABANDONED):
        with pytest.raises(TimeoutError, match="no answer within"):
            calls.run(block(forever), 0.01)
    before = threading.active_count()
    with pytest.raises(TimeoutError, match="earlier calls are stuck"):
        calls.run(lambda: 5, 10)
    assert threading.active_count() == before
    forever.set()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            assert calls.run(lambda: 5, 10) == 5
        except TimeoutError:
            time.sleep(0.01)
        else:
            return
    pytest.fail("it does not recover")


def test_a_call_may_run_beside_its_caller_until_its_deadline() -> None:
    calls, forever = BlockingCalls("test"), threading.Event()
    late = calls.begin(block(forever), 0.01)
    wait_until(lambda: late.is_over)
    with pytest.raises(TimeoutError, match="no answer within"):
        late.result()
    ended = threading.Event()
    in_time = calls.begin(block(ended), 30)
    assert not in_time.is_over
    ended.set()
    wait_until(lambda: in_time.is_over)
    assert in_time.result()
    forever.set()


def test_an_error_of_the_call_is_raised_as_it_is_even_a_timeout_of_the_system() -> None:
    def fail() -> None:
        raise TimeoutError(110, "Connection timed out")

    calls = BlockingCalls("test")
    with pytest.raises(TimeoutError, match="Connection timed out"):
        calls.run(fail, 10)
    assert calls.run(lambda: 5, 10) == 5


def test_after_the_end_no_call_is_made() -> None:
    calls = BlockingCalls("test")
    calls.close()
    with pytest.raises(NotReadyError):
        calls.run(lambda: 5, 10)
