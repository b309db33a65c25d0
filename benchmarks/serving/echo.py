"""The least that FastAPI can do with a request: read its body and send it back. For comparison only."""

from fastapi import FastAPI, Request, Response

app = FastAPI()


@app.post("/predict")
async def echo(request: Request) -> Response:
    """The body as it came."""
    return Response(await request.body())
