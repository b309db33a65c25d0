import asyncio

from service.vigil import Vigil
from tests.service.loops import on_a_loop

AWAKE_S = 0.02


async def turns_until(latest: float) -> int:
    """How often the event loop turns without having anything to wait for; it sleeps in this one turn if it can."""
    loop = asyncio.get_running_loop()
    turns = 0
    ended = loop.create_future()
    loop.call_at(latest, ended.set_result, None)
    select = loop._selector.select  # type: ignore[attr-defined]

    def counted(timeout: float | None) -> object:
        nonlocal turns
        turns += timeout == 0
        return select(timeout)

    loop._selector.select = counted  # type: ignore[attr-defined]
    await ended
    loop._selector.select = select  # type: ignore[attr-defined]
    return turns


@on_a_loop
async def test_after_an_answer_the_loop_looks_again_and_again_for_a_while() -> None:
    loop = asyncio.get_running_loop()
    vigil = Vigil(AWAKE_S)
    vigil.answered(range(1))
    assert await turns_until(loop.time() + AWAKE_S / 2) > 20
    await asyncio.sleep(AWAKE_S)
    assert await turns_until(loop.time() + AWAKE_S) < 10, "then it sleeps"
    vigil.answered(range(0))
    assert await turns_until(loop.time() + AWAKE_S / 2) > 20


@on_a_loop
async def test_where_more_is_under_way_it_does_not() -> None:
    vigil = Vigil(AWAKE_S)
    vigil.answered(range(2))
    assert await turns_until(asyncio.get_running_loop().time() + AWAKE_S / 2) < 10


@on_a_loop
async def test_it_may_be_told_to_sleep_at_once() -> None:
    vigil = Vigil(0)
    vigil.answered(range(1))
    assert await turns_until(asyncio.get_running_loop().time() + AWAKE_S / 2) < 10


@on_a_loop
async def test_however_many_answers_there_are_it_looks_once_a_turn() -> None:
    vigil = Vigil(AWAKE_S)
    looks = 0
    look = vigil._look

    def counted() -> None:
        nonlocal looks
        looks += 1
        look()

    vigil._look = counted  # type: ignore[method-assign]
    for _ in range(10):
        vigil.answered(range(1))
    for turn in (1, 2, 3):
        await asyncio.sleep(0)
        assert looks == turn
