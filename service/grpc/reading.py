"""Reads messages of calls, each within a time, and few at a time, since gRPC takes all of one that is read."""

import asyncio
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from service.errors import InvalidBodyError, RequestTimeoutError


class Reader:
    """Reads messages. gRPC takes little of those that wait for their turn."""

    def __init__(self, most: int, within_s: float, patience_s: float) -> None:
        """Read at most ``most`` messages at a time, each within ``within_s``, with the wait for its turn.

        A message that has not arrived after ``patience_s`` makes way if others wait, so that silent calls do not
        keep them out.
        """
        self._turns = asyncio.Semaphore(most)
        self._within_s = within_s
        self._patience_s = patience_s
        self._waiting = 0

    async def read(self, context: Any) -> Any:
        """Return the next message of a call, or `grpc.aio.EOF` after the last.

        Raises:
            RequestTimeoutError: it did not arrive in time.
            InvalidBodyError: it is not a message of the method.
        """
        try:
            async with asyncio.timeout(self._within_s):
                await self._take_turn()
                try:
                    return await self._receive(context)
                finally:
                    self._turns.release()
        except TimeoutError:
            raise RequestTimeoutError(f"no whole message arrived within {self._within_s:g} s; send it again") from None
        except DecodeError:
            raise InvalidBodyError(
                "the message cannot be parsed; send the one that the .proto file describes"
            ) from None

    async def read_only(self, context: Any) -> Any:
        """Return the message of a call that has one.

        Raises:
            RequestTimeoutError: it did not arrive in time.
            InvalidBodyError: it is not a message of the method, or there is none.
        """
        message = await self.read(context)
        if message is grpc.aio.EOF:
            raise InvalidBodyError("the call has no message; send one")
        return message

    async def _take_turn(self) -> None:
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1

    async def _receive(self, context: Any) -> Any:
        receiving = asyncio.ensure_future(context.read())
        try:
            while not (await asyncio.wait((receiving,), timeout=self._patience_s))[0]:
                if self._waiting:
                    raise RequestTimeoutError("the message arrives more slowly than others, which wait; send it again")
            return receiving.result()
        finally:
            receiving.cancel()
