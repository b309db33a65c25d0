"""Triton's own client, as it is, both the synchronous and the asynchronous one."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.conftest import Service
from tests.service.answers import PICTURE
from tests.service.api.open_inference.exchange import NAME, PROBABILITIES, golden
from tests.service.pictures import DIGITS, GOLDEN_PICTURES, MANIFEST, VERSION, drawing, encode

COUNT = len(GOLDEN_PICTURES)
FILES = np.array([encode(digit) for digit in DIGITS], dtype=np.object_)
LABELS = ["7", "2", "1", "0"]


@pytest.fixture
def client(server: Service) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as connected:
        yield connected


def pixels(*, binary: bool = True) -> list[triton.InferInput]:
    """The golden pictures as a tensor."""
    tensor = triton.InferInput(NAME, list(GOLDEN_PICTURES.shape), "UINT8")
    tensor.set_data_from_numpy(GOLDEN_PICTURES, binary_data=binary)
    return [tensor]


def files() -> list[triton.InferInput]:
    """The golden pictures as encoded files."""
    tensor = triton.InferInput(NAME, [COUNT], "BYTES")
    tensor.set_data_from_numpy(FILES)
    return [tensor]


def is_golden(result: triton.InferResult) -> None:
    golden({output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]})


def labels(result: triton.InferResult) -> list[str]:
    """The best class of each picture."""
    return [row[0].split(b":")[2].decode() for row in result.as_numpy(PROBABILITIES).astype(bytes)]


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", str(VERSION))
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("digits", "9")
    assert client.get_server_metadata()["name"] == "stn-serve"
    assert client.get_model_metadata("digits")["inputs"][0]["shape"] == [-1, *GOLDEN_PICTURES.shape[1:]]
    assert client.get_model_config("digits", "2")["input"][0]["dims"] == list(GOLDEN_PICTURES.shape[1:])
    assert client.get_inference_statistics("digits")["model_stats"][0]["version"] == str(VERSION)
    assert len(client.get_inference_statistics()["model_stats"]) >= 3


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_tensors(client: triton.InferenceServerClient, binary: bool, compression: str | None) -> None:
    result = client.infer(
        "digits",
        pixels(binary=binary),
        request_id="seven",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    is_golden(result)
    assert result.get_response()["id"] == "seven"


@pytest.mark.parametrize("binary", [True, False])
def test_outputs_that_are_asked_for(client: triton.InferenceServerClient, binary: bool) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in reversed(MANIFEST.outputs)]
    is_golden(client.infer("digits", pixels(), outputs=outputs, model_version=str(VERSION)))


def test_encoded_pictures(client: triton.InferenceServerClient) -> None:
    is_golden(client.infer("digits", files()))


@pytest.mark.parametrize("binary", [True, False])
def test_classification(client: triton.InferenceServerClient, binary: bool) -> None:
    outputs = [triton.InferRequestedOutput(PROBABILITIES, binary_data=binary, class_count=2)]
    result = client.infer("digits", files(), outputs=outputs)
    assert result.as_numpy(PROBABILITIES).shape == (COUNT, 2)
    assert labels(result) == LABELS


def test_requests_on_several_connections(server: Service) -> None:
    with triton.InferenceServerClient(server.url.removeprefix("http://"), concurrency=4) as client:
        waiting = [client.async_infer("digits", pixels()) for _ in range(20)]
        for request in waiting:
            is_golden(request.get_result())


def test_errors_say_what_is_wrong(client: triton.InferenceServerClient) -> None:
    for name, version, says in ("nobody", "", "no model is called 'nobody'"), ("digits", "9", "has no version 9"):
        with pytest.raises(InferenceServerException, match=says):
            client.infer(name, pixels(), model_version=version)
        with pytest.raises(InferenceServerException, match=says):
            client.get_model_metadata(name, version)
    tensor = triton.InferInput(NAME, [1, 2, 3, 1], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 2, 3, 1), np.uint8))
    with pytest.raises(InferenceServerException, match=r"must have the shape \[N, 42, 42, 1\]"):
        client.infer("digits", [tensor])
    broken = triton.InferInput(NAME, [2], "BYTES")
    broken.set_data_from_numpy(np.array([PICTURE, b"seven"], dtype=np.object_))
    with pytest.raises(InferenceServerException, match="picture 2: this is not a picture"):
        client.infer("digits", [broken])
    with pytest.raises(InferenceServerException, match="not supported"):
        shared = triton.InferInput(NAME, list(GOLDEN_PICTURES.shape), "UINT8")
        shared.set_shared_memory("region", GOLDEN_PICTURES.nbytes)
        client.infer("digits", [shared])


def test_the_asynchronous_client(server: Service) -> None:
    async def talk() -> None:
        async with triton_aio.InferenceServerClient(server.url.removeprefix("http://")) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("digits")
            assert not await client.is_model_ready("nobody")
            assert (await client.get_model_metadata("digits"))["name"] == "digits"
            for result in await asyncio.gather(*(client.infer("digits", pixels()) for _ in range(8))):
                is_golden(result)
            for binary in True, False:
                for compression in None, "gzip", "deflate":
                    outputs = [triton_aio.InferRequestedOutput(PROBABILITIES, binary_data=binary, class_count=1)]
                    options = {"outputs": outputs, "request_compression_algorithm": compression}
                    assert labels(await client.infer("digits", files(), **options)) == LABELS
            picture = triton_aio.InferInput(NAME, [1], "BYTES")
            picture.set_data_from_numpy(np.array([encode(drawing(300, 200), "JPEG")], dtype=np.object_))
            assert (await client.infer("signs", [picture])).as_numpy(PROBABILITIES).shape == (1, 43)
            with pytest.raises(InferenceServerException, match="no model is called 'nobody'"):
                await client.infer("nobody", files())

    asyncio.run(talk())
