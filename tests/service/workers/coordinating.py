"""A coordinator and participants over real pipes, here in one process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from service.background import Failures
from service.repository.mirror import copy_at_start
from service.repository.repository import initial_statuses
from service.repository.startup import load_models
from service.settings import Settings
from service.workers.coordinator import Coordinator
from service.workers.messages import Ready
from service.workers.participant import Participant
from tests.conftest import START_S
from tests.service.repository.test_repository import until


class Workers:
    """A coordinator, two participants, and what is needed for more."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.failures = Failures()
        self.coordinator = Coordinator(settings, initial_statuses(load_models(settings)), self.failures)
        self.participants = [self.start() for _ in range(2)]
        self.coordinator.start()

    def start(self) -> Participant:
        """A participant with the statuses of the present."""
        ours, theirs = Pipe()
        self.coordinator.admit(ours)
        present = self.coordinator.statuses
        models = load_models(self.settings, present={name: of.served for name, of in present.items()})
        participant = Participant(self.settings, models, theirs, present)
        participant.start()
        return participant

    def pretend(self, says: object) -> Connection:
        """The pipe of a worker that the test plays itself."""
        ours, theirs = Pipe()
        self.coordinator.admit(ours)
        theirs.send(says)
        return theirs

    async def join(self) -> Connection:
        """The pipe of a worker that the test plays itself, once it takes part."""
        pipe = self.pretend(Ready(self.coordinator.statuses))
        await until(lambda: self.coordinator.size == len(self.participants) + 1)
        return pipe

    def versions(self) -> list[list[int]]:
        """What each of the participants serves."""
        return [[entry.version for entry in participant.index(ready_only=True)] for participant in self.participants]


@asynccontextmanager
async def working(models: Path | str, **options: object) -> AsyncIterator[Workers]:
    settings = Settings.model_validate({"models": models, "device": "cpu", **options})
    copy_at_start(settings)
    workers = Workers(settings)
    yield workers
    for participant in workers.participants:
        participant.close()


async def heard(pipe: Connection) -> Any:
    """What the coordinator says to a worker that the test plays."""
    assert await asyncio.to_thread(pipe.poll, START_S), "it says nothing"
    return pipe.recv()
