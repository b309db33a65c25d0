"""With a key, only models that are signed with it are served."""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from model_signing.signing import Config

from export.format.artifact import ArtifactError, read_artifact
from service.errors import ModelLoadError, SettingsError
from service.repository.startup import load_models
from service.repository.trust import fingerprint, read_trusted
from service.settings import Settings

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "models" / "digits" / "3"
Harm = Callable[[Path], None]


def write_key(folder: Path, name: str = "key") -> Path:
    """Write a private key, and beside it the public key, whose path is returned."""
    key = ec.generate_private_key(ec.SECP256R1())
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    public = folder / f"{name}.pub"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return public


def sign(folder: Path, key: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "export.sign", str(folder), "--key", str(key)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def signed_once(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    folder = tmp_path_factory.mktemp("signed") / "digits" / "3"
    shutil.copytree(MODEL, folder)
    done = sign(folder, keys.with_suffix(".pem"))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def signed(signed_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(signed_once, tmp_path / "digits" / "3"))


def test_a_signed_model_is_served_and_names_its_signer(signed: Path, keys: Path) -> None:
    models = load_models(Settings(models=signed.parents[1], verify_key=keys))
    assert [model.signer for model in models] == [fingerprint(keys)]


def test_without_a_key_signatures_are_not_looked_at(signed: Path) -> None:
    (signed / "model.sig").write_text("nonsense")
    assert read_trusted(signed, "digits", 3, Settings(models=signed.parents[1])).signer == ""


def change_a_byte(folder: Path) -> None:
    content = bytearray((folder / "golden.npz").read_bytes())
    content[-1] ^= 1
    (folder / "golden.npz").write_bytes(content)


def swap_the_model(folder: Path) -> None:
    """Replace all files by those of another valid artifact."""
    for file in (ROOT / "models" / "digits" / "2").iterdir():
        shutil.copy(file, folder)


def remove_the_signature(folder: Path) -> None:
    (folder / "model.sig").unlink()


def break_the_signature(folder: Path) -> None:
    (folder / "model.sig").write_text("{}")


def add_a_file(folder: Path) -> None:
    (folder / "more.bin").write_bytes(b"more")


def link_a_file(folder: Path) -> None:
    (folder / "golden.npz").rename(folder.parent / "golden.npz")
    (folder / "golden.npz").symlink_to(folder.parent / "golden.npz")


@pytest.mark.parametrize(
    "harm",
    [change_a_byte, swap_the_model, remove_the_signature, break_the_signature, add_a_file, link_a_file],
    ids=lambda harm: harm.__name__,
)
def test_what_was_changed_after_signing_is_not_loaded(signed: Path, keys: Path, harm: Harm) -> None:
    harm(signed)
    with pytest.raises(ModelLoadError, match=r"signed|signature") as refused:
        load_models(Settings(models=signed.parents[1], verify_key=keys))
    if "is not what the key" in str(refused.value):
        assert str(refused.value).endswith("; do not trust it")


@pytest.mark.parametrize("place", ["digits/4", "digits/33", "signs/3", "digits.3/3"])
def test_a_signed_version_is_not_loaded_under_another_name_or_version(signed: Path, keys: Path, place: str) -> None:
    models = signed.parents[1]
    (models / place).parent.mkdir(exist_ok=True)
    signed.rename(models / place)
    with pytest.raises(
        ModelLoadError, match=rf"{place} in .* unless it was signed as digits/3 and moved; then move it"
    ):
        load_models(Settings(models=models, load=place, verify_key=keys))


def test_an_older_signed_version_does_not_pass_for_a_newer_one(signed: Path, keys: Path, tmp_path: Path) -> None:
    newer = Path(shutil.copytree(ROOT / "models" / "digits" / "2", signed.with_name("4")))
    assert sign(newer, keys.with_suffix(".pem")).returncode == 0
    load_models(Settings(models=signed.parents[1], verify_key=keys))
    shutil.rmtree(newer)
    shutil.copytree(signed, newer)
    with pytest.raises(ModelLoadError, match=r"digits/4 in .* is not what the key"):
        load_models(Settings(models=signed.parents[1], verify_key=keys))


def state_the_place(folder: Path, place: str) -> None:
    """Change the statement of a signature, which then no longer holds."""
    bundle = json.loads((folder / "model.sig").read_text())
    statement = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"digits/3/", place.encode())
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(statement).decode()
    (folder / "model.sig").write_text(json.dumps(bundle))


def test_a_signature_cannot_be_made_to_state_another_place(signed: Path, keys: Path) -> None:
    state_the_place(signed, "digits/4/")
    moved = signed.rename(signed.with_name("4"))
    with pytest.raises(ArtifactError, match=r"is not what the key .* has signed"):
        read_trusted(moved, "digits", 4, Settings(models=signed.parents[1], verify_key=keys))


@pytest.mark.parametrize("place", ["\\u001b[31mdigits\\n/4/", "signs/4/more/", "../4/"])
def test_a_stated_place_that_is_not_name_and_version_is_not_repeated(signed: Path, keys: Path, place: str) -> None:
    state_the_place(signed, place)
    with pytest.raises(ArtifactError, match=r"; do not trust it$"):
        read_trusted(signed, "digits", 3, Settings(models=signed.parents[1], verify_key=keys))


def test_a_deeply_nested_signature_is_refused(signed: Path, keys: Path) -> None:
    (signed / "model.sig").write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match=r"; do not trust it$"):
        read_trusted(signed, "digits", 3, Settings(models=signed.parents[1], verify_key=keys))


def test_a_second_statement_beside_the_signed_one_does_not_count(signed: Path, keys: Path) -> None:
    """Readers of bundles accept fields in two spellings."""
    bundle = json.loads((signed / "model.sig").read_text())
    state_the_place(signed, "digits/4/")
    forged = json.loads((signed / "model.sig").read_text())["dsseEnvelope"]
    moved = signed.rename(signed.with_name("4"))
    for first, second in ((forged, bundle["dsseEnvelope"]), (bundle["dsseEnvelope"], forged)):
        both = {key: value for key, value in bundle.items() if key != "dsseEnvelope"}
        (moved / "model.sig").write_text(json.dumps(both | {"dsseEnvelope": first, "dsse_envelope": second}))
        with pytest.raises(ArtifactError, match=r"is not what the key .* has signed"):
            read_trusted(moved, "digits", 4, Settings(models=signed.parents[1], verify_key=keys))


def test_a_signature_without_name_and_version_is_refused_with_the_cure(signed: Path, keys: Path) -> None:
    (signed / "model.sig").unlink()
    signer = Config().use_elliptic_key_signer(private_key=keys.with_suffix(".pem"))  # type: ignore[no-untyped-call]
    signer.sign(signed, signed / "model.sig")
    with pytest.raises(ArtifactError, match=r"without its name and version; sign it again with python -m export.sign"):
        read_trusted(signed, "digits", 3, Settings(models=signed.parents[1], verify_key=keys))
    assert sign(signed, keys.with_suffix(".pem")).returncode == 0
    assert read_trusted(signed, "digits", 3, Settings(models=signed.parents[1], verify_key=keys)).signer


def test_what_is_not_name_and_version_is_not_signed(tmp_path: Path, keys: Path) -> None:
    folder = Path(shutil.copytree(MODEL, tmp_path / "digits" / "latest"))
    done = sign(folder, keys.with_suffix(".pem"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is not NAME/VERSION" in done.stderr


def test_a_signature_by_another_key_does_not_count(signed: Path, tmp_path: Path) -> None:
    other = write_key(tmp_path, "other")
    with pytest.raises(ArtifactError, match=r"is not what the key .* has signed .*; do not trust it$"):
        read_trusted(signed, "digits", 3, Settings(models=signed.parents[1], verify_key=other))


def test_a_key_that_cannot_be_used_stops_the_start(signed: Path, tmp_path: Path) -> None:
    missing, nonsense, other_kind = tmp_path / "missing", tmp_path / "nonsense", tmp_path / "rsa"
    nonsense.write_text("nonsense")
    rsa_key = rsa.generate_private_key(65537, 2048).public_key()
    other_kind.write_bytes(rsa_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for key, reason in ((missing, "cannot be read"), (nonsense, "cannot be read"), (other_kind, "elliptic curve")):
        with pytest.raises(SettingsError, match=reason):
            load_models(Settings(models=signed.parents[1], verify_key=key))


def test_the_private_key_may_have_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(MODEL, tmp_path / "digits" / "3"))
    key = ec.generate_private_key(ec.SECP256R1())
    encrypted = BestAvailableEncryption(b"secret")
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encrypted))
    assert sign(folder, tmp_path / "key.pem").returncode == 1
    monkeypatch.setenv("SIGNING_PASSWORD", "secret")
    done = sign(folder, tmp_path / "key.pem")
    assert done.returncode == 0, done.stderr


def test_only_whole_undamaged_versions_are_signed(tmp_path: Path, keys: Path) -> None:
    folder = Path(shutil.copytree(MODEL, tmp_path / "digits" / "3"))
    change_a_byte(folder)
    done = sign(folder, keys.with_suffix(".pem"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert not (folder / "model.sig").exists()
    done = sign(MODEL, tmp_path / "no.pem")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no.pem" in done.stderr
    assert not list(MODEL.glob("model.sig*"))


def test_the_artifact_is_read_from_the_bytes_that_were_verified(signed: Path, keys: Path) -> None:
    artifact = read_trusted(signed, "digits", 3, Settings(models=signed.parents[1], verify_key=keys))
    assert (artifact.folder, artifact.model) == (signed, read_artifact(MODEL).model)
