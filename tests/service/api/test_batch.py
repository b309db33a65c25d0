"""Several pictures: in one request, or in many at the same time."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import pytest

from service.api.predict import MAX_POINTS
from service.schemas.answers import BatchPrediction
from tests.conftest import Service, start_service
from tests.service.answers import (
    PICTURE,
    Raw,
    as_schema,
    connect,
    error,
    post,
    predict,
    receive,
    refused,
    well,
    without_time,
)
from tests.service.broken import DAMAGED, FOREIGN, WHOLE
from tests.service.pictures import MANIFEST, VERSION, Answer, difference, drawing, encode, noise, read

MANY = 200
MAX_PICTURES = 3
MAX_BYTES = 2_000
MAX_BATCH_BYTES = 5_000
QUEUE = 2


@pytest.fixture(scope="module")
def narrow() -> Iterator[Service]:
    """A service with limits that are easy to exceed."""
    limits = ("--max-pictures", MAX_PICTURES, "--max-bytes", MAX_BYTES, "--max-batch-bytes", MAX_BATCH_BYTES)
    with start_service(*limits, "--max-queue", QUEUE) as service:
        yield service
        well(service)


@pytest.fixture(scope="module")
def stoppable() -> Iterator[Service]:
    """A service of its own for the tests that suspend it."""
    with start_service() as service:
        yield service
        well(service)


def send(service: Service, pictures: Sequence[bytes], field: str = "images", **options: Any) -> httpx.Response:
    return service.client.post("/predict/batch", files=[(field, picture) for picture in pictures], params=options)


def results(response: httpx.Response) -> list[Answer]:
    assert response.status_code == 200, response.text
    found: list[Answer] = as_schema(BatchPrediction, response.content)["results"]
    return found


def same(one: Answer, other: Answer) -> bool:
    """Whether two answers are to the same picture; in batches of other sizes, other digits are rounded off."""

    def probabilities(answer: Answer) -> np.ndarray[Any, Any]:
        return np.array([p["probability"] for p in sorted(answer["predictions"], key=lambda p: str(p["label"]))])

    return (
        {p["label"] for p in one["predictions"]} == {p["label"] for p in other["predictions"]}
        and difference(probabilities(one), probabilities(other)) < 1e-3
        and difference(np.array(one["theta"]), np.array(other["theta"])) < 1e-3
        and difference(read(one["rectified"]), read(other["rectified"])) <= 2
    )


def test_each_picture_of_a_batch_is_answered_as_it_is_alone_and_in_order(server: Service) -> None:
    pictures = [*WHOLE.values(), *(encode(noise(seed)) for seed in range(8)), encode(drawing(300, 200)), PICTURE]
    options = {"top_k": len(MANIFEST.classes)}
    answers = results(send(server, pictures, "images", **options))
    assert len(answers) == len(pictures)
    for picture, found in zip(pictures, answers, strict=True):
        expected = predict(server, picture, **options)
        assert same(found, expected)
        assert difference(np.array(found["corners"]), np.array(expected["corners"])) < 0.1


def test_a_batch_of_one_is_answered_like_a_picture_alone(server: Service) -> None:
    (answer,) = results(send(server, [PICTURE]))
    assert without_time(answer) == without_time(predict(server))


def test_more_points_than_an_answer_may_have_are_refused(server: Service) -> None:
    fitting = MAX_POINTS // 64**2 // len(MANIFEST.transforms)
    assert len(results(send(server, [PICTURE] * fitting, points=64))) == fitting
    too_many = send(server, [PICTURE] * (fitting + 1), points=64)
    refused(too_many, 413, "too_large", f"more than the {MAX_POINTS} of a request")


def test_the_pictures_of_a_batch_share_an_inference(server: Service) -> None:
    sizes = [answer["batch_size"] for answer in results(send(server, [PICTURE] * 32))]
    assert sum(1 / size for size in sizes) < 32, sizes


def test_a_bad_picture_does_not_fail_its_neighbours(server: Service) -> None:
    bad = {
        b"": "invalid_image",
        DAMAGED["PNG cut in half"]: "invalid_image",
        FOREIGN["PDF"]: "unsupported_media_type",
        DAMAGED["TIFF of 200 bits"]: "invalid_image",
    }
    pictures = [PICTURE, *(content for broken in bad for content in (broken, PICTURE))]
    found = results(send(server, pictures))
    assert all(same(answer, predict(server)) for answer in found[::2])
    assert [answer["error"]["code"] for answer in found[1::2]] == list(bad.values())
    assert all(answer.keys() == {"error"} for answer in found[1::2])


def test_a_batch_of_bad_pictures_alone_is_answered_too(server: Service) -> None:
    found = results(send(server, [b"seven"] * 3))
    assert [answer["error"]["code"] for answer in found] == ["unsupported_media_type"] * 3


def test_options_apply_to_every_picture(server: Service) -> None:
    answers = results(send(server, [PICTURE] * 3, top_k=2, rectified="jpeg", model="digits", version=VERSION))
    assert [len(answer["predictions"]) for answer in answers] == [2] * 3
    assert [answer["rectified"]["format"] for answer in answers] == ["jpeg"] * 3
    assert [answer["rectified"] for answer in results(send(server, [PICTURE], rectified="none"))] == [None]


@pytest.mark.parametrize("extra", [{"files": [("other", PICTURE)]}, {"data": {"note": "hello"}}], ids=["file", "text"])
def test_a_part_that_is_neither_picture_nor_option_is_refused_by_name(server: Service, extra: dict[str, Any]) -> None:
    files = [("images", PICTURE), *extra.get("files", [])]
    response = server.client.post("/predict/batch", files=files, data=extra.get("data"))
    refused(response, 422, "invalid_parameter", "note" if "data" in extra else "other")


@pytest.mark.parametrize("excess", [0, 1, 2, 20])
def test_the_limit_of_pictures_is_exact(narrow: Service, excess: int) -> None:
    response = send(narrow, [b"7"] * (MAX_PICTURES + excess))
    if excess == 0:
        assert len(results(response)) == MAX_PICTURES
    else:
        refused(response, 413, "too_large", "fewer")


def test_a_body_above_the_limit_is_refused_whole(narrow: Service) -> None:
    pictures = [bytes(MAX_BYTES), bytes(MAX_BYTES), bytes(MAX_BYTES)]
    refused(send(narrow, pictures), 413, "too_large", f"more than {MAX_BATCH_BYTES} bytes")


def test_a_picture_above_the_limit_is_refused_alone(narrow: Service) -> None:
    large, right = PICTURE + bytes(MAX_BYTES + 1 - len(PICTURE)), PICTURE + bytes(MAX_BYTES - len(PICTURE))
    first, second = results(send(narrow, [large, right]))
    assert first["error"]["code"] == "too_large"
    assert "scale it down" in first["error"]["message"]
    assert same(second, predict(narrow))


def test_pictures_beyond_what_may_wait_at_all_are_refused_alone(narrow: Service) -> None:
    found = results(send(narrow, [PICTURE] * 3))
    codes = [answer["error"]["code"] if "error" in answer else "answered" for answer in found]
    assert codes == ["answered"] * QUEUE + ["too_large"] * (3 - QUEUE)


@pytest.mark.parametrize("field", ["image", "images[]", "Images"])
def test_a_batch_without_pictures_is_refused_with_the_cure(server: Service, field: str) -> None:
    refused(send(server, [PICTURE], field), 422, "invalid_parameter", f"found: '{field}'); curl -F images=@PICTURE")


def test_text_in_a_batch_is_refused_with_the_cure(server: Service) -> None:
    response = server.client.post("/predict/batch", data={"images": "seven"}, files={"other": PICTURE})
    refused(response, 422, "invalid_parameter", "needs the @")


@pytest.mark.parametrize("declared", ["image/png", "application/json", "text/plain", None])
def test_a_batch_that_is_not_multipart_is_refused_with_the_cure(server: Service, declared: str | None) -> None:
    headers = {"content-type": declared} if declared else {}
    response = server.client.post("/predict/batch", content=PICTURE, headers=headers)
    refused(response, 415, "unsupported_media_type", "send multipart/form-data with parts called 'images'")


def test_a_batch_that_is_cut_short_is_refused_and_not_answered_in_part(server: Service) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + PICTURE + b"\r\n"
    response = server.client.post(
        "/predict/batch", content=body * 2 + body[:100], headers={"content-type": "multipart/form-data; boundary=x"}
    )
    refused(response, 400, "invalid_body", "send the complete form")


def at_once(service: Service, pictures: Sequence[bytes]) -> list[Raw]:
    """Each picture on a connection of its own, all there before the service reads the first.

    The connections are made before, since the event loop takes a single new one a turn.
    """
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(service)) for _ in pictures]
        for connection in connections:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n")
            assert receive(connection).status == 200
        service.process.send_signal(signal.SIGSTOP)
        try:
            for connection, picture in zip(connections, pictures, strict=True):
                connection.sendall(post(picture, target="/predict?top_k=1000"))
        finally:
            service.process.send_signal(signal.SIGCONT)
        return [receive(connection) for connection in connections]


def test_everyone_gets_the_answer_to_their_own_picture(stoppable: Service) -> None:
    pictures = [encode(noise(seed)) for seed in range(MANY)]
    expected = [predict(stoppable, picture, top_k=1000) for picture in pictures]
    answers = at_once(stoppable, pictures)
    assert [answer.status for answer in answers] == [200] * MANY
    found = [answer.json() for answer in answers]
    for index in range(MANY):
        assert same(found[index], expected[index])
        assert not same(found[index], expected[index - 1]), "or this test could not tell whose answer it is"
    assert max(answer["batch_size"] for answer in found) > 1


def test_an_idle_service_answers_a_lone_request_alone(stoppable: Service) -> None:
    assert [predict(stoppable)["batch_size"] for _ in range(5)] == [1] * 5


def test_a_full_queue_refuses_with_the_cure_and_takes_again_later() -> None:
    with start_service("--max-queue", 1, "--max-batch", 1) as service:
        answers = at_once(service, [PICTURE] * 50)
        assert {answer.status for answer in answers} == {200, 429}
        for answer in answers:
            if answer.status == 429:
                error(answer.content, "queue_full", "try again a little later")
                assert answer.headers["Retry-After"] == "1"
        well(service)
        assert [predict(service)["batch_size"] for _ in range(5)] == [1] * 5
