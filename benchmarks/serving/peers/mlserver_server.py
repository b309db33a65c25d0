"""MLServer: FastAPI in front. A route of its own, since its protocol has no pictures; such routes get no batches."""

import sys

import orjson
import uvloop
from fastapi import Request, Response
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.handlers import custom_handler
from work import Work  # beside this file


class Model(MLModel):
    """All the work on a picture."""

    async def load(self) -> bool:
        """Load the model."""
        self.work = Work()
        return True

    @custom_handler(rest_path="/predict")
    async def predict(self, request: Request) -> Response:
        """One picture, as the body."""
        answer = self.work.infer([self.work.decode(await request.body())])[0]
        return Response(orjson.dumps(answer), media_type="application/json")


if __name__ == "__main__":
    port = int(sys.argv[1])
    settings = Settings(
        host="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_endpoint=None, parallel_workers=0, debug=False
    )
    uvloop.run(MLServer(settings).start([ModelSettings(name="model", implementation=Model)]))
