"""Equal requests are answered from memory: within a key, a model version and the limit of memory, and no further."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from service.metrics.recorder import Recorder
from service.middleware.api_keys import make_key
from service.request_context import RequestContext, current
from service.response_cache import ENTRY_BYTES, ResponseCache, batch_status
from service.responses import RawResponse
from tests.conftest import Service, start_service, wait_until
from tests.service import artifacts
from tests.service.answers import PICTURE, refused
from tests.service.exposed import scrape
from tests.service.pictures import DIGITS, encode, noise

USER, USER_ENTRY = make_key("camera")
OTHER, OTHER_ENTRY = make_key("gate")
ADMIN, ADMIN_ENTRY = make_key("operator")
KEYS = ("--api-keys", f"{USER_ENTRY},{OTHER_ENTRY}", "--admin-keys", ADMIN_ENTRY)
MODEL = ("digits", 1)
HIT, MISS = "stn-serve; hit", "stn-serve; fwd=miss"


class Cached(NamedTuple):
    service: Service
    models: Path


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cached]:
    models = tmp_path_factory.mktemp("models")
    artifacts.write_labelled(models / "digits" / "1", "a-")
    with start_service("--models", models, "--response-cache-bytes", 2**20, *KEYS) as service:
        yield Cached(service, models)


def ask(
    service: Service, picture: bytes, route: str = "/predict", key: str = USER, accept: str = "*/*", **options: Any
) -> httpx.Response:
    headers = {"x-api-key": key, "accept": accept}
    answer = service.client.post(route, content=picture, params=options, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def status(answer: httpx.Response) -> str:
    return answer.headers["cache-status"]


def test_an_equal_request_gets_the_same_answer_under_its_own_id(cached: Cached) -> None:
    picture = encode(noise(1))
    first, second = ask(cached.service, picture), ask(cached.service, picture)
    assert (status(first), status(second)) == (MISS, HIT)
    assert second.content == first.content
    assert second.headers["content-type"] == "application/json"
    assert second.headers["x-request-id"] != first.headers["x-request-id"]


@pytest.mark.parametrize(
    "options", [{"top_k": 3}, {"rectified": "none"}, {"region": "1,2,30,30"}, {"rectified_size": "9x9"}, {"points": 2}]
)
def test_other_options_are_other_answers(cached: Cached, options: dict[str, Any]) -> None:
    picture = encode(noise(2))
    plain = ask(cached.service, picture)
    first, second = ask(cached.service, picture, **options), ask(cached.service, picture, **options)
    assert (status(first), status(second)) == (MISS, HIT)
    assert first.content != plain.content
    assert second.content == first.content


def test_the_form_of_the_body_makes_no_difference(cached: Cached) -> None:
    picture = encode(noise(3))
    ask(cached.service, picture)
    form = cached.service.client.post("/predict", files={"image": picture}, headers={"x-api-key": USER})
    assert status(form) == HIT


def test_a_batch_shares_answers_with_single_pictures_and_counts_them(cached: Cached) -> None:
    known, new = encode(noise(4)), encode(noise(5))
    alone = ask(cached.service, known)
    counts = []
    for _ in range(2):
        files = [("images", picture) for picture in (known, new, b"none")]
        answer = cached.service.client.post("/predict/batch", files=files, headers={"x-api-key": USER})
        assert answer.json()["results"][0] == alone.json()
        counts.append(status(answer))
    assert counts == ['stn-serve; fwd=partial; detail="1 of 3"', 'stn-serve; fwd=partial; detail="2 of 3"']


def test_rectified_pictures_are_kept_for_each_format(cached: Cached) -> None:
    picture = encode(noise(6))
    for accept in ("image/png", "image/webp", "application/json"):
        first, second = (ask(cached.service, picture, "/rectify", accept=accept) for _ in range(2))
        assert (status(first), status(second)) == (MISS, HIT)
        assert first.headers["content-type"] == second.headers["content-type"] == accept
        assert second.content == first.content
        assert second.headers.get("x-corners") == first.headers.get("x-corners")


def test_answers_never_cross_from_key_to_key(cached: Cached) -> None:
    picture = encode(noise(7))
    assert [status(ask(cached.service, picture, key=key)) for key in (USER, OTHER, ADMIN)] == [MISS] * 3
    assert [status(ask(cached.service, picture, key=key)) for key in (USER, OTHER, ADMIN)] == [HIT] * 3


def test_errors_are_not_kept(cached: Cached) -> None:
    for _ in range(2):
        answer = cached.service.client.post("/predict", content=PICTURE[:30], headers={"x-api-key": USER})
        refused(answer, 400, "invalid_image")
        assert "cache-status" not in answer.headers


def test_hits_are_counted_and_logged_as_requests(cached: Cached) -> None:
    picture = encode(noise(8))
    before = scrape(cached.service)
    answers = [ask(cached.service, picture) for _ in range(3)]
    after = scrape(cached.service)

    def grown(name: str, **labels: object) -> float:
        return after(name, **labels) - before(name, **labels)

    assert grown("stn_response_cache_hits_total", model="digits", version=1) == 2
    assert grown("stn_response_cache_misses_total", model="digits", version=1) == 1
    assert grown("stn_requests_total", route="/predict", status=200) == 3
    assert grown("stn_batch_size_sum") == 1
    assert grown("stn_response_cache_bytes") > len(answers[0].content)

    def told() -> list[int | None]:
        lines = [json.loads(line) for line in cached.service.log().splitlines() if line.startswith("{")]
        logged = {line["request_id"]: line for line in lines if line["event"] == "request"}
        return [logged.get(answer.headers["x-request-id"], {}).get("cached") for answer in answers[:2]]

    wait_until(lambda: told() == [None, 1])


def test_a_replaced_version_answers_for_itself(cached: Cached) -> None:
    picture = encode(DIGITS[0])
    version = cached.models / "digits" / "1"
    assert ask(cached.service, picture).json()["predictions"][0]["label"].startswith("a-")
    shutil.rmtree(version)
    artifacts.write_labelled(version, "b-")
    load = cached.service.client.post("/v2/repository/models/digits/load", headers={"x-api-key": ADMIN})
    assert load.status_code == 200, load.text
    answer = ask(cached.service, picture)
    assert status(answer) == MISS
    assert answer.json()["predictions"][0]["label"].startswith("b-")


def test_keys_share_answers_only_where_that_is_wanted(tmp_path: Path) -> None:
    flags = ("--response-cache-bytes", 2**20, "--response-cache-across-keys", "true", "--rate-limit", "3/hour")
    with start_service(*flags, *KEYS) as service:
        assert [status(ask(service, PICTURE, key=key)) for key in (USER, OTHER, USER, USER)] == [MISS, HIT, HIT, HIT]
        answer = service.client.post("/predict", content=PICTURE, headers={"x-api-key": USER})
        refused(answer, 429, "rate_limited")


def test_without_the_setting_there_is_no_cache(server: Service) -> None:
    for _ in range(2):
        answer = server.client.post("/predict", content=PICTURE)
        assert "cache-status" not in answer.headers


def response(size: int) -> RawResponse:
    return RawResponse(bytes(size), headers=())


def in_context(key: str | None, work: Any) -> Any:
    context = RequestContext("")
    context.key = key

    async def run() -> Any:
        current.set(context)
        return await work

    return asyncio.run(run())


def test_the_least_recently_used_answers_give_way() -> None:
    cache = ResponseCache(4 * (1000 + ENTRY_BYTES + 100), Recorder())
    for name in b"abcd":
        cache.keep(bytes([name]), response(1000))
    assert cache.find(b"a", MODEL) is not None
    cache.keep(b"e", response(1000))
    assert cache.find(b"b", MODEL) is None
    assert all(cache.find(bytes([name]), MODEL) is not None for name in b"acde")
    (((_, (size,)),)) = tuple(cache.gauges().items())
    assert 4 * 1000 <= size <= 4 * (1000 + ENTRY_BYTES + 100)


def test_an_answer_that_is_larger_than_the_cache_is_not_kept_and_displaces_none() -> None:
    cache = ResponseCache(4000, Recorder())
    cache.keep(b"small", response(100))
    cache.keep(b"large", response(4000))
    assert cache.find(b"large", MODEL) is None
    assert cache.find(b"small", MODEL) is not None


def test_keys_depend_on_picture_facts_and_owner_and_on_nothing_else() -> None:
    alone, shared = ResponseCache(1, Recorder()), ResponseCache(1, Recorder(), across_keys=True)
    large = bytes(2**20)
    for picture in (b"x", large):
        expected = in_context("camera", alone.key(picture, "digits", 1))
        assert in_context("camera", alone.key(picture, "digits", 1)) == expected
        assert in_context("gate", alone.key(picture, "digits", 1)) != expected
        assert in_context(None, alone.key(picture, "digits", 1)) != expected
        assert in_context("camera", alone.key(picture, "digits", 2)) != expected
        assert in_context("camera", alone.key(picture + b"x", "digits", 1)) != expected
        assert in_context("gate", shared.key(picture, 1)) == in_context("camera", shared.key(picture, 1))


@pytest.mark.parametrize(
    ("hits", "pictures", "says"), [(0, 2, MISS), (2, 2, HIT), (1, 2, 'stn-serve; fwd=partial; detail="1 of 2"')]
)
def test_a_batch_says_how_many_of_its_answers_came_from_memory(hits: int, pictures: int, says: str) -> None:
    assert batch_status(hits, pictures) == (b"cache-status", says.encode())
