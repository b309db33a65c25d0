from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without settings of ours."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"STN_{name.upper()}", raising=False)
    return monkeypatch


def test_defaults_serve_the_models_folder_to_this_machine_alone() -> None:
    settings = load_settings([])
    assert (settings.host, settings.port, settings.models_folder) == ("127.0.0.1", 8000, Path("models"))
    assert settings.device == "auto"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_comes_from_the_environment_or_from_its_flag(name: str, environment: pytest.MonkeyPatch) -> None:
    default = Settings.model_fields[name].default
    assert getattr(load_settings(["--" + name.replace("_", "-"), str(default)]), name) == default
    environment.setenv(f"STN_{name.upper()}", str(default))
    assert getattr(load_settings([]), name) == default


def test_a_flag_wins_over_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("STN_PORT", "1")
    assert load_settings([]).port == 1
    assert load_settings(["--port", "2"]).port == 2


def test_an_unknown_variable_is_refused_with_the_known_ones(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("STN_PROT", "1")
    with pytest.raises(SettingsError, match=r"STN_PROT.*STN_PORT"):
        load_settings([])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--host", ""],  # to sockets it would mean every address
        ["--port", "many"],
        ["--port", "70000"],
        ["--port", "-1"],
        ["--port"],
        ["--device", "gpu"],
        ["--max-batch", "0"],
        ["--log-level", "loud"],
        ["--prot", "1"],
        ["positional"],
    ],
)
def test_a_wrong_flag_is_refused_in_one_line_that_names_it(arguments: list[str]) -> None:
    with pytest.raises(SettingsError) as error_response:
        load_settings(arguments)
    message = str(error_response.value)
    assert "\n" not in message
    assert "--help" in message
    assert arguments[0].strip("-").replace("-", "_") in message.replace("-", "_")


def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        load_settings(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert "--" + name.replace("_", "-") in text
        assert field.description is not None
        assert field.description[:20] in text
