import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from service.errors import InvalidImageError
from service.inference.process_pool import ProcessPool
from tests.conftest import wait_until

MEGABYTE = 2**20
GENEROUS_S = 60.0


def with_pool(use: Callable[[ProcessPool], Coroutine[Any, Any, None]], max_bytes: int = 64 * MEGABYTE) -> None:
    async def run() -> None:
        pool = ProcessPool(1, max_bytes)
        try:
            await use(pool)
        finally:
            await pool.close()

    asyncio.run(run())


def soon() -> float:
    return time.perf_counter() + GENEROUS_S


def take(size: int) -> int:
    return len(bytes(size))


def identify_process() -> tuple[int, int]:
    return os.getpid(), os.nice(0)


def test_work_is_done_in_another_process_that_lets_others_go_first() -> None:
    async def use(pool: ProcessPool) -> None:
        pid, nice = await pool.run(identify_process, deadline=soon())
        assert pid != os.getpid()
        assert nice > os.nice(0)

    with_pool(use)


def test_work_is_ended_at_its_deadline_and_the_next_is_done() -> None:
    async def use(pool: ProcessPool) -> None:
        first, _ = await pool.run(identify_process, deadline=soon())
        with pytest.raises(TimeoutError):
            await pool.run(time.sleep, 10 * GENEROUS_S, deadline=time.perf_counter() + 0.2)
        second, _ = await pool.run(identify_process, deadline=soon())
        assert second != first

    with_pool(use)


def test_work_whose_deadline_is_over_is_not_begun() -> None:
    async def use(pool: ProcessPool) -> None:
        with pytest.raises(TimeoutError):
            await pool.run(take, 1, deadline=time.perf_counter() - 1)

    with_pool(use)


def test_work_may_take_so_much_memory_and_no_more() -> None:
    async def use(pool: ProcessPool) -> None:
        assert await pool.run(take, 60 * MEGABYTE, deadline=soon()) == 60 * MEGABYTE
        with pytest.raises(MemoryError):
            await pool.run(take, 600 * MEGABYTE, deadline=soon())

    with_pool(use)


def test_a_decoder_that_crashes_is_an_error_of_its_picture_alone() -> None:
    async def use(pool: ProcessPool) -> None:
        with pytest.raises(InvalidImageError, match="save the picture again"):
            await pool.run(os.abort, deadline=soon())
        assert await pool.run(take, 1, deadline=soon()) == 1

    with_pool(use)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_work_that_is_cancelled_is_ended() -> None:
    async def use(pool: ProcessPool) -> None:
        pid, _ = await pool.run(identify_process, deadline=soon())
        work = asyncio.create_task(pool.run(time.sleep, 10 * GENEROUS_S, deadline=soon() + 10 * GENEROUS_S))
        await asyncio.sleep(0.3)
        work.cancel()
        await asyncio.to_thread(wait_until, lambda: not is_alive(pid))
        assert await pool.run(take, 1, deadline=soon()) == 1

    with_pool(use)


def test_processes_and_their_threads_end_when_there_is_no_work_and_start_again() -> None:
    async def use() -> None:
        pool = ProcessPool(1, 64 * MEGABYTE, idle_s=0.1)
        before = threading.enumerate()
        first, _ = await pool.run(identify_process, deadline=soon())
        watching = [each for each in threading.enumerate() if each not in before and "asyncio" not in each.name]
        assert watching
        await asyncio.to_thread(wait_until, lambda: not is_alive(first))
        await asyncio.to_thread(wait_until, lambda: not any(thread.is_alive() for thread in watching))
        second, _ = await pool.run(identify_process, deadline=soon())
        assert second != first
        await pool.close()
        assert not is_alive(second)

    asyncio.run(use())


def test_work_that_comes_often_keeps_its_process() -> None:
    async def use() -> None:
        pool = ProcessPool(1, 64 * MEGABYTE, idle_s=GENEROUS_S)
        pids = {(await pool.run(identify_process, deadline=soon()))[0] for _ in range(3)}
        assert len(pids) == 1
        await pool.close()

    asyncio.run(use())
