"""KServe's own client, as it is: ``python kserve_client.py URL GOLDEN OUT``, run by the Python that has kserve.

Asks about the pictures in GOLDEN, in every way that this client knows, and writes what it was told to OUT as JSON.
"""

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from PIL import Image

NAME = "image"


def tensor(pictures: Any, binary: bool) -> InferInput:
    asked = InferInput(NAME, list(pictures.shape), "UINT8")
    asked.set_data_from_numpy(pictures, binary_data=binary)
    return asked


def files(pictures: Any) -> InferInput:
    contents = []
    for picture in pictures:
        content = io.BytesIO()
        Image.fromarray(picture[..., 0]).save(content, "PNG")
        contents.append(content.getvalue())
    asked = InferInput(NAME, [len(contents)], "BYTES")
    asked.set_data_from_numpy(np.array(contents, dtype=np.object_), binary_data=True)
    return asked


async def talk(url: str, pictures: Any) -> dict[str, Any]:
    told: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        told["live"] = await client.is_server_live(url)
        told["ready"] = await client.is_server_ready(url)
        told["model ready"] = [await client.is_model_ready(url, name) for name in ("digits", "nobody")]

        async def infer(way: str, asked: InferInput, *outputs: RequestedOutput, **parameters: Any) -> None:
            request = InferRequest(
                "digits", [asked], request_id=way, parameters=parameters or None, request_outputs=list(outputs) or None
            )
            answer = await client.infer(url, request, model_name="digits")
            told[way] = {output.name: output.as_numpy().tolist() for output in answer.outputs}
            told[way]["id"] = answer.id

        await infer("tensor", tensor(pictures, binary=False))
        await infer("binary tensor", tensor(pictures, binary=True))
        await infer("binary outputs", tensor(pictures, binary=True), binary_data_output=True)
        await infer("files", files(pictures))
        await infer("one output", files(pictures), RequestedOutput("theta", {"binary_data": True}))
        try:
            await client.infer(url, InferRequest("nobody", [files(pictures)]), model_name="nobody")
        except httpx.HTTPStatusError as error:
            told["error"] = str(error)
    return told


if __name__ == "__main__":
    address, golden, out = sys.argv[1:]
    with np.load(golden) as archive:
        found = asyncio.run(talk(address, archive[NAME]))
    Path(out).write_text(json.dumps(found))
