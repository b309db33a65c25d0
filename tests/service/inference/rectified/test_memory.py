"""The memory of pictures that are held until they have been sampled."""

import asyncio

from service.inference.rectified.memory import Hold, MemoryBudget
from tests.service.loops import on_a_loop


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@on_a_loop
async def test_a_picture_waits_until_others_have_given_their_memory_back() -> None:
    budget, first, second = MemoryBudget(10), Hold(6), Hold(5)
    await budget.take(first)
    waiting = asyncio.create_task(budget.take(second))
    await turns()
    assert not second.is_taken
    budget.give_back(first)
    await waiting
    assert (second.is_taken, budget.held) == (True, 5)


@on_a_loop
async def test_a_small_picture_does_not_overtake_a_large_one() -> None:
    budget, first, large, small = MemoryBudget(10), Hold(6), Hold(9), Hold(1)
    await budget.take(first)
    waiting = [asyncio.create_task(budget.take(hold)) for hold in (large, small)]
    await turns()
    assert not small.is_taken
    budget.give_back(first)
    await asyncio.gather(*waiting)
    assert budget.held == 10


@on_a_loop
async def test_a_picture_beyond_the_budget_is_taken_when_it_is_alone() -> None:
    budget, first, huge = MemoryBudget(10), Hold(1), Hold(99)
    await budget.take(first)
    waiting = asyncio.create_task(budget.take(huge))
    await turns()
    assert not huge.is_taken
    budget.give_back(first)
    await waiting


@on_a_loop
async def test_a_client_that_leaves_while_it_waits_takes_nothing_with_it() -> None:
    budget, first, second, third = MemoryBudget(10), Hold(10), Hold(10), Hold(10)
    await budget.take(first)
    leaving = asyncio.create_task(budget.take(second))
    following = asyncio.create_task(budget.take(third))
    await turns()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    for hold in (second, first, first):  # giving back twice changes nothing
        budget.give_back(hold)
    await following
    assert budget.held == 10
