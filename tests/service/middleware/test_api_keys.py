"""Keys: made by the command, kept as hashes, taken from settings and files, and never quoted."""

import subprocess
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.middleware.api_keys import hash_key, load_keys, make_key
from tests.conftest import clean_environment, command, fail_to_start

KEY, ENTRY = make_key("gate")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(("key", *arguments)), env=clean_environment({}), capture_output=True, text=True, check=False
    )


def test_the_command_gives_a_key_and_an_entry_that_knows_it() -> None:
    made = run("camera-7")
    assert made.returncode == 0, made.stderr
    key, entry = (line.split()[1] for line in made.stdout.splitlines())
    assert load_keys("api-keys", entry, "").name_of(hash_key(key.encode())) == "camera-7"
    assert key not in entry


def test_no_two_keys_are_the_same() -> None:
    assert len({make_key("gate")[0] for _ in range(1000)}) == 1000


@pytest.mark.parametrize("arguments", [(), ("two", "names"), ("",), ("a:b",), ("x" * 65,), ("línea",), ("a,b",)])
def test_the_command_says_what_a_name_is(arguments: tuple[str, ...]) -> None:
    made = run(*arguments)
    assert (made.returncode, made.stdout) == (1, "")
    assert made.stderr.startswith("error: ")
    assert "python -m service key NAME" in made.stderr


def test_keys_come_from_the_setting_and_the_file(tmp_path: Path) -> None:
    other_key, other_entry = make_key("door")
    file = tmp_path / "keys"
    file.write_text(f"# the door\n\n  {other_entry}  \n")
    keys = load_keys("api-keys", f" {ENTRY} ,", str(file))
    assert keys.name_of(hash_key(KEY.encode())) == "gate"
    assert keys.name_of(hash_key(other_key.encode())) == "door"


@pytest.mark.parametrize(
    "wrong", ["", KEY[:-1], KEY + "=", KEY.lower(), ENTRY, ENTRY.partition(":")[2]], ids=lambda wrong: str(len(wrong))
)
def test_nothing_but_the_key_itself_is_known(wrong: str) -> None:
    assert load_keys("api-keys", ENTRY, "").name_of(hash_key(wrong.encode())) is None


def test_two_keys_of_one_name_are_both_known() -> None:
    new_key, new_entry = make_key("gate")
    keys = load_keys("api-keys", f"{ENTRY},{new_entry}", "")
    assert {keys.name_of(hash_key(key.encode())) for key in (KEY, new_key)} == {"gate"}


@pytest.mark.parametrize(
    "wrong",
    [KEY, f"gate:{KEY}", "gate:" + "0" * 63, ":" + "0" * 64, ENTRY + ENTRY],
    ids=["key", "named key", "short", "nameless", "two"],
)
def test_a_wrong_entry_is_named_by_its_place_and_not_quoted(wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ENTRY}\n{wrong}\n")
    for listed, named in ((f"{ENTRY},{wrong}", ""), ("", str(file))):
        with pytest.raises(SettingsError, match="entry 2 of ") as error_response:
            load_keys("api-keys", listed, named)
        assert wrong not in str(error_response.value)


def test_a_file_without_keys_or_none_at_all_does_not_open_the_service(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# none yet\n")
    for file in (empty, tmp_path / "missing", tmp_path):
        stopped = fail_to_start("--api-keys-file", file)
        assert stopped.returncode == 1
        assert str(file) in stopped.stderr
        assert "Traceback" not in stopped.stderr


def test_a_key_in_place_of_its_hash_stops_the_start_and_is_not_repeated() -> None:
    stopped = fail_to_start(env={"STN_ADMIN_KEYS": KEY})
    assert stopped.returncode == 1
    assert "--admin-keys is not NAME:HASH" in stopped.stderr
    assert KEY not in stopped.stderr
