import asyncio
import gc
import weakref
from contextlib import suppress

import pytest
from starlette.requests import ClientDisconnect

from service.request_context import RequestContext, current, track_future
from tests.service.loops import on_a_loop


class Batch:
    """What an answer keeps in memory."""


@on_a_loop
async def test_who_waits_learns_that_the_client_has_gone() -> None:
    context = RequestContext("1")
    current.set(context)
    loop = asyncio.get_running_loop()
    answered, waiting = loop.create_future(), loop.create_future()
    track_future(answered)
    track_future(waiting)
    answered.set_result("an answer")
    context.disconnect()
    assert await answered == "an answer"
    with pytest.raises(ClientDisconnect):
        await waiting


@on_a_loop
async def test_who_begins_to_wait_after_the_client_has_gone_waits_in_vain() -> None:
    context = RequestContext("1")
    current.set(context)
    context.disconnect()
    with pytest.raises(ClientDisconnect):
        await track_future(asyncio.get_running_loop().create_future())


@on_a_loop
async def test_outside_of_requests_nobody_is_noted() -> None:
    current.set(None)
    answer = asyncio.get_running_loop().create_future()
    track_future(answer)
    assert not answer.done()


@pytest.mark.parametrize("leaves", [False, True])
def test_a_request_that_has_ended_leaves_nothing_behind_for_the_garbage_collector(leaves: bool) -> None:
    async def request(context: RequestContext, batch: Batch) -> None:
        current.set(context)
        with suppress(ClientDisconnect):
            assert await track_future(asyncio.get_running_loop().create_future()) is batch
        context.end()

    async def kept() -> bool:
        context, batch = RequestContext("1"), Batch()
        reference = weakref.ref(batch)
        task = asyncio.create_task(request(context, batch))
        await asyncio.sleep(0)
        if leaves:
            context.disconnect()
        else:
            context.pending[0].set_result(batch)
        await task
        del batch, task
        return reference() is not None

    gc.disable()
    try:
        assert not asyncio.run(kept())
    finally:
        gc.enable()
