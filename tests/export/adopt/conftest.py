"""Shared by the tests of adoption and of the service over what was adopted."""

import pytest

from export.format.artifact import Artifact
from tests.export.adopt.adopting import TINY, Adopted, adopt_in, request


@pytest.fixture(scope="session")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Adopted:
    """The artifact of an example, made once; no test may change it."""
    made: dict[str, Artifact] = {}

    def artifact(name: str) -> Artifact:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = adopt_in(folder, request(folder, name, **TINY.get(name, {})))
        return made[name]

    return artifact
