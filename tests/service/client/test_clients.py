"""Both clients against the real service, and against servers at their worst moments."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.client import (
    AnswerError,
    AsyncClient,
    BusyError,
    Client,
    ClientError,
    ErrorBody,
    FileError,
    FrameAnswer,
    Prediction,
    RectifiedPicture,
    RefusedError,
    UnreachableError,
)
from tests.conftest import REPOSITORY, Service
from tests.service.answers import PICTURE
from tests.service.client.scripted import GOOD, RawResponse, failure
from tests.service.client.scripted import server as scripted
from tests.service.pictures import DIGITS, encode
from tests.service.server.test_overload import misbehaving

Ask = Callable[..., Any]


def wait(url: str, method: str, *arguments: Any, client: dict[str, Any], **options: Any) -> Any:
    with Client(url, **client) as connection:
        return getattr(connection, method)(*arguments, **options)


def awaited(url: str, method: str, *arguments: Any, client: dict[str, Any], **options: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(url, **client) as connection:
            asked: Coroutine[Any, Any, Any] = getattr(connection, method)(*arguments, **options)
            return await asked

    return asyncio.run(run())


@pytest.fixture(params=[wait, awaited], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Asks one question with either client."""

    def one(url: str, method: str, *arguments: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
        return request.param(url, method, *arguments, client=client or {}, **options)

    return one


def test_a_prediction_is_what_the_service_answers(server: Service, ask: Ask) -> None:
    answer = ask(server.url, "predict", PICTURE, top_k=3, rectified="jpeg")
    assert isinstance(answer, Prediction)
    plain = server.client.post("/predict", params={"top_k": 3, "rectified": "jpeg"}, content=PICTURE).json()
    assert answer.model_dump(mode="json", exclude={"timings_ms"}) == {
        k: v for k, v in plain.items() if k != "timings_ms"
    }
    assert answer.rectified is not None
    assert answer.rectified.content().startswith(b"\xff\xd8")


def test_a_picture_may_be_a_path(server: Service, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "digit.png").write_bytes(PICTURE)
    for path in (tmp_path / "digit.png", str(tmp_path / "digit.png")):
        assert ask(server.url, "predict", path).predictions == ask(server.url, "predict", PICTURE).predictions


def test_regions_of_a_picture_are_answered_in_order(server: Service, ask: Ask) -> None:
    regions = [(0, 0, 14, 14), np.array([2, 3.5, 1000, 20], np.float32)]
    first, second = ask(server.url, "predict_regions", PICTURE, regions, rectified="none")
    assert (first.region, second.region) == ([0, 0, 14, 14], [2, 3, 42, 20])
    found = ask(server.url, "rectify", PICTURE, region=regions[1])
    np.testing.assert_allclose(found.corners, second.corners, atol=0.006)


@pytest.mark.parametrize("regions", [[], [(1, 2, 3)], [(9, 9, 1, 1)], [(0, 0, float("nan"), 1)], [(90, 90, 99, 99)]])
def test_regions_that_are_none_are_refused_by_the_service(server: Service, ask: Ask, regions: Any) -> None:
    with pytest.raises(RefusedError) as refusal:
        ask(server.url, "predict_regions", PICTURE, regions)
    assert (refusal.value.status, refusal.value.code) == (422, "invalid_parameter")


def test_a_stream_answers_frames_until_it_is_closed(server: Service) -> None:
    with Client(server.url) as client, client.stream(rectified="none", top_k=1) as stream:
        for number, picture in enumerate((PICTURE, b"no picture")):
            stream.send(picture)
            found = stream.receive()
            assert (found.frame, found.dropped) == (number, 0)
            assert isinstance(found.answer, ErrorBody if number else Prediction)


def test_an_asynchronous_stream_does_so_too(server: Service) -> None:
    async def run() -> FrameAnswer:
        async with AsyncClient(server.url) as client, client.stream(rectified="none", timeout_ms=9000) as stream:
            await stream.send(PICTURE)
            return await stream.receive()

    found = asyncio.run(run())
    assert isinstance(found.answer, Prediction)
    assert found.answer.predictions[0].label == "7"


def test_a_stream_that_is_refused_says_why(server: Service) -> None:
    with Client(server.url) as client:
        with pytest.raises(RefusedError) as refusal, client.stream(model="letters") as stream:
            stream.receive()
        assert refusal.value.code == "model_not_found"
        with pytest.raises(UnreachableError, match="has ended"), client.stream() as stream:
            stream.send(bytes(11 * 2**20))
            stream.receive()
    with Client(f"{server.url}/elsewhere") as client, pytest.raises(RefusedError), client.stream():
        pass
    with Client("http://127.0.0.1:9", timeout_s=5) as client, pytest.raises(UnreachableError), client.stream():
        pass


def test_a_batch_answers_for_each_picture(server: Service, ask: Ask) -> None:
    good, bad, other = ask(server.url, "predict_batch", [PICTURE, b"no picture", encode(DIGITS[1])], top_k=1)
    assert isinstance(bad, ErrorBody)
    assert bad.error.code == "unsupported_media_type"
    assert [good.predictions[0].label, other.predictions[0].label] == [
        ask(server.url, "predict", picture, top_k=1).predictions[0].label for picture in (PICTURE, encode(DIGITS[1]))
    ]


def test_a_rectified_picture_comes_with_what_the_service_says_of_it(server: Service, ask: Ask, tmp_path: Path) -> None:
    found = ask(server.url, "rectify", PICTURE, rectified="webp", rectified_size="30x40", padding="edge", margin=0.1)
    answer = ask(server.url, "predict", PICTURE)
    assert isinstance(found, RectifiedPicture)
    assert (found.format, found.model) == ("webp", answer.model)
    np.testing.assert_allclose(found.corners, answer.corners, atol=0.006)
    assert (found.label, found.index) == (answer.predictions[0].label, answer.predictions[0].index)
    assert found.probability == pytest.approx(answer.predictions[0].probability, abs=1e-6)
    assert -180 <= found.angle <= 180
    found.save(tmp_path / "straight.webp")
    with Image.open(tmp_path / "straight.webp") as image:
        assert (image.format, image.size) == ("WEBP", (40, 30))
    with pytest.raises(FileError, match="nowhere"):
        found.save(tmp_path / "nowhere" / "straight.webp")


def test_answers_tell_their_reliability_if_they_are_asked(server: Service, ask: Ask) -> None:
    answer = ask(server.url, "predict", PICTURE, reliability=4, views=4)
    assert answer.reliability is not None
    assert answer.reliability.views == 4
    assert ask(server.url, "rectify", PICTURE, reliability=4, views=4).reliability == answer.reliability
    assert ask(server.url, "rectify", PICTURE).reliability is None


def test_a_hint_at_the_angle_is_sent(server: Service, ask: Ask) -> None:
    lying = encode(np.rot90(DIGITS[0]))  # counter-clockwise
    expected = ask(server.url, "predict", PICTURE).predictions[0].label
    assert ask(server.url, "predict", lying, angle_hint=-90).predictions[0].label == expected
    assert ask(server.url, "rectify", lying, angle_hint=-90).angle < -45
    (first,) = ask(server.url, "predict_regions", lying, [(0, 0, 42, 42)], angle_hint=-90.0)
    assert first.predictions[0].label == expected
    assert ask(server.url, "predict_batch", [lying], angle_hint=-90)[0].predictions[0].label == expected
    with pytest.raises(RefusedError, match="angle_hint"):
        ask(server.url, "predict", lying, angle_hint=200)


def test_without_options_a_rectified_picture_has_the_format_of_the_upload(server: Service, ask: Ask) -> None:
    assert ask(server.url, "rectify", encode(DIGITS[0], "JPEG")).format == "jpeg"


def test_a_picture_from_elsewhere_is_said_to_be_none_of_the_service(ask: Ask) -> None:
    elsewhere = RawResponse(200, "no picture", {"Content-Type": "image/png"})
    with scripted(elsewhere) as (url, _), pytest.raises(AnswerError, match="not a response of stn-serve"):
        ask(url, "rectify", PICTURE)


def test_models_and_readiness(server: Service, ask: Ask) -> None:
    served = ask(server.url, "models")
    assert ("digits", 2) in [(model.name, model.version) for model in served]
    assert ask(server.url, "ready") is True


def test_a_refusal_carries_status_code_and_message(server: Service, ask: Ask) -> None:
    with pytest.raises(RefusedError, match=r"\(400 invalid_image\)") as refused:
        ask(server.url, "predict", b"GIF89a")
    assert (refused.value.status, refused.value.code) == (400, "invalid_image")
    with pytest.raises(RefusedError, match=r"404 model_not_found"):
        ask(server.url, "predict", PICTURE, model="nobody")


def test_a_timeout_of_the_service_is_asked_for_in_its_header(ask: Ask) -> None:
    with scripted(GOOD) as (url, seen):
        ask(url, "predict", PICTURE, timeout_ms=250, model="digits")
    assert seen[0]["x-timeout-ms"] == "250"


def test_the_key_is_sent(ask: Ask) -> None:
    with scripted(GOOD) as (url, seen):
        ask(url, "predict", PICTURE, client={"key": "a-key"})
        ask(url, "predict", PICTURE)
    assert seen[0]["authorization"] == "Bearer a-key"
    assert "authorization" not in seen[1]


@pytest.mark.parametrize("key", ["", "two words", "a\nline", "schlüssel"])
def test_what_cannot_be_a_key_is_not_sent(key: str, ask: Ask) -> None:
    with scripted(GOOD) as (url, seen), pytest.raises(ClientError, match="not an API key"):
        ask(url, "predict", PICTURE, client={"key": key})
    assert seen == []


def test_a_service_may_be_behind_a_path(ask: Ask) -> None:
    with scripted(GOOD) as (url, seen):
        ask(f"{url}/models/here/", "predict", PICTURE, top_k=2)
    assert seen[0]["path"] == "/models/here/predict?top_k=2"


@pytest.mark.parametrize("reply", [failure(429, "queue_full"), failure(503, "not_ready"), RawResponse(0, "")])
def test_a_busy_service_or_a_broken_connection_is_asked_again(reply: RawResponse, ask: Ask) -> None:
    with scripted(reply, reply, GOOD) as (url, seen):
        assert ask(url, "predict", PICTURE, client={"patience_s": 2}).predictions[0].label == "7"
    assert len(seen) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500, 504])
def test_other_errors_are_not_asked_again(status: int, ask: Ask) -> None:
    with scripted(failure(status, "some_code"), GOOD) as (url, seen), pytest.raises(RefusedError):
        ask(url, "predict", PICTURE)
    assert len(seen) == 1


def test_retry_after_is_waited_for(ask: Ask) -> None:
    with scripted(failure(429, "queue_full", Retry_After="1"), GOOD) as (url, _):
        begin = time.monotonic()
        ask(url, "predict", PICTURE)
        assert time.monotonic() - begin >= 1


@pytest.mark.parametrize(
    "when",
    ["86400", formatdate(time.time() + 86_400, usegmt=True), "-5", "soon"],
    ids=["a day", "tomorrow", "before", "words"],
)
def test_whatever_retry_after_says_patience_ends(when: str, ask: Ask) -> None:
    with (
        scripted(failure(503, "not_ready", Retry_After=when)) as (url, seen),
        pytest.raises(BusyError) as refused,
    ):
        ask(url, "predict", PICTURE, client={"patience_s": 0.3})
    assert refused.value.code == "not_ready"
    assert 1 < len(seen) <= 9


def test_without_patience_a_busy_service_is_asked_once(ask: Ask) -> None:
    with scripted(failure(429, "queue_full"), GOOD) as (url, seen), pytest.raises(BusyError):
        ask(url, "predict", PICTURE, client={"patience_s": 0})
    assert len(seen) == 1


def test_a_service_that_is_not_ready_is_asked_once(ask: Ask) -> None:
    with scripted(failure(503, "not_ready")) as (url, seen):
        assert ask(url, "ready") is False
    assert len(seen) == 1


@pytest.mark.parametrize(
    "reply",
    [RawResponse(200, "<html>"), RawResponse(502, "Bad Gateway"), RawResponse(200, "{}"), RawResponse(404, "{}")],
)
def test_what_is_no_answer_of_the_service_is_said_to_be_none(reply: RawResponse, ask: Ask) -> None:
    with scripted(reply) as (url, _), pytest.raises(AnswerError, match=rf"{reply.status}.*check the URL"):
        ask(url, "predict", PICTURE)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nowhere", "http://", "http://[", "ftp://127.0.0.1"])
def test_a_service_that_is_not_there_is_said_not_to_be(url: str, ask: Ask) -> None:
    with pytest.raises(UnreachableError, match="cannot reach"):
        ask(url, "predict", PICTURE)


def test_a_file_that_cannot_be_read_is_named(ask: Ask, tmp_path: Path) -> None:
    with scripted(GOOD) as (url, seen), pytest.raises(FileError, match=r"nothing\.png: No such file"):
        ask(url, "predict", tmp_path / "nothing.png")
    assert seen == []


def test_more_than_the_service_takes_at_once_is_all_answered_in_the_end() -> None:
    with misbehaving("slow", "--max-queue", 1) as service:
        with Client(service.url, patience_s=0) as hasty, ThreadPoolExecutor(4) as crowd:
            hurried = [crowd.submit(hasty.predict, PICTURE) for _ in range(4)]
            assert any(isinstance(asked.exception(), BusyError) for asked in hurried)
        with Client(service.url) as patient, ThreadPoolExecutor(4) as crowd:
            answers = [crowd.submit(patient.predict, PICTURE) for _ in range(4)]
            assert {asked.result().predictions[0].label for asked in answers} == {"7"}


def test_the_client_needs_no_part_of_the_server() -> None:
    server_alone = {
        "fastapi",
        "starlette",
        "uvicorn",
        "numpy",
        "onnxruntime",
        "imagecodecs",
        "imaging",
        "pydantic_settings",
        "export",
    }
    code = f"import sys, service.client, service.client.command; print(sorted({server_alone!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"
