"""BentoML. Its batches take lists and forms alone; here it answers raw bodies, one by one.

Started by ``bentoml serve``.
"""

from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType
from work import Work  # beside this file


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Model:
    """All the work on a picture."""

    def __init__(self) -> None:
        self.work = Work()

    @bentoml.api(route="/predict")
    async def predict(self, image: Annotated[bytes, ContentType("image/*")], /) -> dict[str, Any]:
        """One picture, as the body."""
        return self.work.infer([self.work.decode(image)])[0]
