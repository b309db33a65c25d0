"""``python -m export.push`` and ``python -m export.pull``: models at a URL."""

import shutil
from pathlib import Path

import pytest

from export.format.artifact import Artifact, ArtifactError, read_artifact
from export.format.remote import RemoteError, RemoteModels, public_url
from export.push import __main__ as push_module
from tests.export.commands import Export, one_line

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/there"


def test_what_is_pushed_can_be_pulled(url: str, export: Export, tmp_path: Path) -> None:
    done = export("push", MODELS / "digits", url)
    assert done.returncode == 0, done.stderr
    assert sorted(RemoteModels(url).versions()) == [("digits", 2), ("digits", 3)]
    assert "already" in export("push", MODELS / "digits" / "3", url).stdout
    done = export("pull", url, "--model", "digits/3", "--out", tmp_path / "here")
    assert done.returncode == 0, done.stderr
    assert [folder.name for folder in (tmp_path / "here" / "digits").iterdir()] == ["3"]
    found = read_artifact(tmp_path / "here" / "digits" / "3")
    assert found.model == read_artifact(MODELS / "digits" / "3").model
    assert "up to date" in export("pull", url, "--model", "digits/3", "--out", tmp_path / "here").stdout


def test_what_is_pushed_is_what_was_verified(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(MODELS / "digits" / "3", tmp_path / "digits" / "3"))

    def read_and_change(place: Path) -> Artifact:
        artifact = read_artifact(place)
        (place / "golden.npz").write_bytes(b"changed meanwhile")
        return artifact

    monkeypatch.setattr(push_module, "read_artifact", read_and_change)
    push_module.push(folder, url)
    assert read_artifact(tmp_path / "there" / "digits" / "3").model == read_artifact(MODELS / "digits" / "3").model


def test_a_manifest_that_changes_meanwhile_is_not_pushed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(MODELS / "digits" / "3", tmp_path / "digits" / "3"))

    def read_and_change(place: Path) -> Artifact:
        artifact = read_artifact(place)
        shutil.copy(MODELS / "digits" / "2" / "manifest.json", place)
        return artifact

    monkeypatch.setattr(push_module, "read_artifact", read_and_change)
    with pytest.raises(ArtifactError, match=r"manifest\.json has changed meanwhile; push it again"):
        push_module.push(folder, url)
    assert not (tmp_path / "there").exists()


def test_a_different_version_is_replaced_by_force_only(url: str, export: Export, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "digits" / "3"
    shutil.copytree(MODELS / "digits" / "2", folder)
    export("push", MODELS / "digits" / "3", url)
    assert "--force" in one_line(export("push", folder, url))
    assert "--force" in one_line(export("pull", url, "--model", "digits/3", "--out", tmp_path / "models"))
    assert export("push", folder, url, "--force").returncode == 0
    remote = RemoteModels(url)
    version = remote.versions()["digits", 3]
    assert remote.head(version)["manifest.json"] == (folder / "manifest.json").read_bytes()


def test_a_signature_of_what_was_replaced_does_not_stay(url: str, export: Export, tmp_path: Path) -> None:
    export("push", MODELS / "digits" / "3", url)
    signature = tmp_path / "there" / "digits" / "3" / "model.sig"
    signature.write_text("{}")
    assert export("push", MODELS / "digits" / "3", url, "--force").returncode == 0
    assert not signature.exists()
    assert "already" in export("push", MODELS / "digits" / "3", url).stdout


def test_a_link_is_pushed_under_its_own_name_and_an_odd_name_not_at_all(
    url: str, export: Export, tmp_path: Path
) -> None:
    for place in ("signs/4", "my model/3"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).symlink_to(MODELS / "digits" / "3")
    assert export("push", tmp_path / "signs" / "4", url).returncode == 0
    assert list(RemoteModels(url).versions()) == [("signs", 4)]
    assert "rename it" in one_line(export("push", tmp_path / "my model" / "3", url))


def test_what_cannot_be_pushed_is_named(url: str, export: Export, tmp_path: Path) -> None:
    assert "has no versions" in one_line(export("push", tmp_path, url))
    damaged = tmp_path / "digits" / "3"
    shutil.copytree(MODELS / "digits" / "3", damaged)
    (damaged / "golden.npz").write_bytes(b"")
    assert "golden.npz" in one_line(export("push", damaged, url))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert "export it first" in one_line(export("push", tmp_path / "run", url))
    assert not (tmp_path / "there").exists()


def test_what_is_not_there_cannot_be_pulled(url: str, export: Export, tmp_path: Path) -> None:
    export("push", MODELS / "digits" / "3", url)
    assert "it has digits/3" in one_line(export("pull", url, "--model", "cats", "--out", tmp_path / "here"))
    assert not (tmp_path / "here").exists()


def test_damage_at_the_url_is_not_written_here(url: str, export: Export, tmp_path: Path) -> None:
    export("push", MODELS / "digits" / "3", url)
    file = tmp_path / "there" / "digits" / "3" / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert "not the file that its manifest lists" in one_line(export("pull", url, "--out", tmp_path / "here"))
    file.write_bytes(file.read_bytes() * 2)
    assert "larger than" in one_line(export("pull", url, "--out", tmp_path / "here"))
    assert not list((tmp_path / "here").rglob("*.onnx"))


def test_a_version_without_a_manifest_is_none(url: str, export: Export, tmp_path: Path) -> None:
    export("push", MODELS / "digits" / "3", url)
    (tmp_path / "there" / "digits" / "3" / "manifest.json").unlink()
    assert RemoteModels(url).versions() == {}


def test_secrets_of_urls_are_not_shown() -> None:
    assert public_url("https://me:secret@host/models?token=secret") == "https://host/models"
    assert public_url("zip://a.jpg::https://me:secret@host/x.zip") == "zip://a.jpg::https://host/x.zip"
    assert public_url("http://u:p@[::1]/x?token=secret") == "http://[::1]/x"
    with pytest.raises(RemoteError) as caught:
        RemoteModels("teleport://me:secret@host/models")
    assert "secret" not in str(caught.value)
