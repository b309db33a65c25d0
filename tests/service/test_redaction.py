"""Keys that clients put in the wrong place end in no log."""

import json
from urllib.parse import quote

import pytest

from service.middleware.api_keys import hash_key, make_key
from service.middleware.request_id import request_id
from service.redaction import HIDDEN, MAX_EDGES, Redactor, hide_keys
from tests.conftest import STOP_S, start_service
from tests.service.answers import PICTURE, connect, receive

KEY, ENTRY = make_key("camera")
OWN = "a-secret-of-our-own.42"
BASE64 = "+9/zK3w==Q/x+=="
OTHERS = {"of another form": OWN, "in base64": BASE64, "a name and a word": "user:pa55", "short": "k3y5"}
REDACTOR = Redactor(lambda text: text.decode() in OTHERS.values())


@pytest.mark.parametrize("secret", [KEY, KEY[:30], *OTHERS.values()], ids=["whole", "most of one", *OTHERS])
@pytest.mark.parametrize(
    "place",
    ["/{}", "/predict/{}", "/a/{}/b", "/predict;key={}", "/x?key={}&y=1", "/k:{},2", "/id-{}", "/~{}.png", "({})"],
)
@pytest.mark.parametrize("encodings", [0, 1, 2])
def test_a_key_is_hidden_wherever_it_stands_in_a_path(secret: str, place: str, encodings: int) -> None:
    hidden = place.format(secret)
    for _ in range(encodings):
        hidden = "".join(f"%{ord(letter):02x}" for letter in hidden) if encodings == 1 else quote(hidden, safe="")
    redacted = REDACTOR.redact(hidden)
    assert secret not in redacted
    assert HIDDEN in redacted


@pytest.mark.parametrize(
    "header",
    [(b"x-api-key", b"other-keys"), (b"authorization", b"Bearer other-keys"), (b"cookie", b"session=other-keys")],
)
def test_what_came_as_a_credential_is_hidden_though_no_key_is_like_it(header: tuple[bytes, bytes]) -> None:
    value = header[1].decode().rpartition(" ")[2]
    assert REDACTOR.redact(f"/a/{value}", [header]) == f"/a/{HIDDEN}"


@pytest.mark.parametrize(
    "path", ["/predict", "/v2/models/stn_digits/infer", "/%2e%2e/models", "/page/0123456789abcdef/x"]
)
def test_other_paths_stay_as_they_are(path: str) -> None:
    assert REDACTOR.redact(path, [(b"x-api-key", KEY.encode())]) == path
    assert hide_keys(path) == path


def test_a_text_with_too_many_places_for_a_key_is_hidden_whole() -> None:
    assert REDACTOR.redact(f"it is {'a-' * MAX_EDGES}{OWN} and more") == f"it is {HIDDEN} and more"
    assert Redactor(None).is_clean("a-" * MAX_EDGES)


@pytest.mark.parametrize("secret", OTHERS.values(), ids=OTHERS)
def test_a_known_key_with_more_around_it_is_no_id(secret: str) -> None:
    assert not REDACTOR.is_clean(secret)
    assert not REDACTOR.is_clean(f"id-{secret}")
    assert REDACTOR.is_clean("550e8400-e29b-41d4-a716-446655440000")


@pytest.mark.parametrize("given", [KEY, f"id-{KEY}", KEY[:30]], ids=["whole", "with more", "most of one"])
def test_a_key_is_no_id_of_a_request(given: str) -> None:
    knows_none = Redactor(lambda _: False)
    assert given not in request_id([(b"x-request-id", given.encode())], knows_none)
    assert OWN not in request_id([(b"x-request-id", OWN.encode()), (b"x-api-key", OWN.encode())], knows_none)
    assert OWN not in request_id([(b"x-request-id", OWN.encode())], REDACTOR)
    assert request_id([(b"x-request-id", OWN.encode())], knows_none) == OWN


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_service_logs_no_key_and_gives_none_back_as_an_id(log_format: str) -> None:
    operator, admin_entry = make_key("operator")
    own_entry = f"mine:{hash_key(OWN.encode()).hex()}"
    keys = ("--api-keys", f"{ENTRY},{own_entry}", "--admin-keys", admin_entry)
    with start_service(*keys, "--log-format", log_format, "--log-level", "debug") as service:
        for key in (KEY, OWN, operator):
            for headers in ({}, {"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
                for path in (key, f"predict/{key}", f"v2/models/{key}", quote(quote(f"a={key}", safe=""))):
                    service.client.get(f"/{path}", headers=headers)
                    service.client.post(f"/{path}?key={key}", content=PICTURE, headers=headers)
                for name in ("X-Request-ID", "User-Agent", "traceparent", "Referer", "X-Forwarded-For"):
                    for method, path in (("POST", "/predict"), ("GET", "/models"), ("POST", f"/predict?key={key}")):
                        answer = service.client.request(
                            method, path, content=PICTURE, headers=headers | {name: f"id-{key}"}
                        )
                        assert key not in str(answer.headers)
            service.client.post(f"/v2/repository/models/{key}/load", headers={"X-API-Key": operator})
            service.client.post(f"/v2/repository/models/{key}/unload", headers={"X-API-Key": operator})
            for request in (f"GET /{key} HTTP/9\r\n\r\n", f"GET /{key} HTTP/1.1\r\nX-API-Key: {key}\r\nx y\r\n\r\n"):
                with connect(service) as connection:
                    connection.sendall(request.encode())
                    receive(connection)
        service.process.terminate()
        assert service.process.wait(STOP_S) == 0
        log = service.log()
    assert len(log.splitlines()) > 100
    for key in (KEY, OWN, operator):
        assert key not in log
        assert key[4:] not in log
    if log_format == "json":
        assert all(json.loads(line) for line in log.splitlines())
