import asyncio

from service.server.fast_path.write_buffer import CorkedTransport, WriteBuffer
from tests.service.loops import on_a_loop
from tests.service.server.connections import Recorder


def corked(
    sent: list[bytes], in_progress: int, write_buffer: WriteBuffer | None = None
) -> tuple[CorkedTransport, Recorder]:
    transport = Recorder(sent)
    return CorkedTransport(transport, write_buffer or WriteBuffer(), range(in_progress)), transport


def test_with_one_request_in_progress_nothing_waits() -> None:
    sent: list[bytes] = []
    corked(sent, in_progress=1)[0].write(b"answer")
    assert sent == [b"answer"]


@on_a_loop
async def test_answers_of_a_turn_leave_together_one_after_the_other() -> None:
    sent: list[bytes] = []
    write_buffer = WriteBuffer()
    transports = [corked(sent, 3, write_buffer)[0] for _ in range(3)]
    for number, transport in enumerate(transports):
        transport.write(b"head ")
        transport.write(b"%d" % number)
    assert not sent
    await asyncio.sleep(0)
    assert sent == [b"head %d" % number for number in range(3)]
    transports[0].write(b"more")
    await asyncio.sleep(0)
    assert sent[3:] == [b"more"]


@on_a_loop
async def test_what_is_held_leaves_before_the_connection_closes() -> None:
    sent: list[bytes] = []
    transport, recorder = corked(sent, in_progress=2)
    transport.write(b"answer")
    transport.close()
    assert (sent, recorder.closed) == ([b"answer"], True)
    await asyncio.sleep(0)
    assert sent == [b"answer"]


@on_a_loop
async def test_a_connection_that_is_lost_holds_up_no_other() -> None:
    sent: list[bytes] = []
    write_buffer = WriteBuffer()
    lost, recorder = corked(sent, 2, write_buffer)
    other, _ = corked(sent, 2, write_buffer)
    lost.write(b"lost")
    other.write(b"other")
    recorder.closed = True
    await asyncio.sleep(0)
    assert sent == [b"other"]
    other.write(b"next")
    await asyncio.sleep(0)
    assert sent[1:] == [b"next"]
