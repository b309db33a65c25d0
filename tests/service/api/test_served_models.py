"""Which model answers, and how models of other kinds do: of two transformers, in TorchScript."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from export.exporter import Destination, export_run
from export.format.artifact import read_artifact
from export.format.manifest import Change, Worth
from export.program import ProgramRuntime
from export.torchscript import TorchScriptRuntime
from service.schemas.models import ModelList
from tests.conftest import Service, fail_to_start, start_service
from tests.service import artifacts
from tests.service.answers import PICTURE, as_schema, predict, refused, well, without_time
from tests.service.pictures import ARTIFACT, HEIGHT, MANIFEST, TRANSFORM, WIDTH, difference, encode, read
from training.fitting.runs import Run

WORTH = Worth(
    pictures=200, accuracy=0.9, mean_theta=0.5, identity=0.4, decoration=False, turn_deg=Change(given=8, left=2)
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of several models and versions, and of things beside them that are no models."""
    models = tmp_path_factory.mktemp("zoo")
    for name, version, worth in (("digits", 9, None), ("digits", 10, None), ("alpha", 2, WORTH)):
        artifacts.write_labelled(models / name / str(version), f"{name}-{version}-", worth=worth)
    artifacts.write_twin(models / "twin" / "1", branch=2)
    artifacts.write_twin(models / "twin" / "2", step=2)
    for stray in ("digits/latest", "digits/011", "digits/.12.345.new", "digits/0", ".hidden/1", "a b/1"):
        (models / stray).mkdir(parents=True)
    (models / "README").write_text("not a model")
    (models / "digits" / "13").write_text("not a folder")
    with start_service("--models", models) as service:
        yield service
        well(service)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("alpha", 2)),
        ({"version": 2}, ("alpha", 2)),
        ({"model": "digits"}, ("digits", 10)),
        ({"model": "digits", "version": 9}, ("digits", 9)),
        ({"model": "digits", "version": 10}, ("digits", 10)),
        ({"model": "twin"}, ("twin", 2)),
    ],
)
def test_the_model_asked_for_answers_the_first_and_newest_by_default(
    zoo: Service, options: dict[str, object], expected: tuple[str, int]
) -> None:
    answer = predict(zoo, PICTURE, **options)
    name, version = expected
    assert answer["model"] == {"name": name, "version": version}
    assert name == "twin" or answer["predictions"][0]["label"].startswith(f"{name}-{version}-")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("model=beta", "no model is called 'beta'; there are: alpha, digits, twin"),
        ("model=digits&version=11", "digits has no version 11; it has: 9, 10"),
        ("version=9", "alpha has no version 9; it has: 2"),
    ],
)
def test_a_model_that_is_not_there_is_refused_with_those_that_are(zoo: Service, query: str, says: str) -> None:
    refused(zoo.client.post(f"/predict?{query}", content=PICTURE), 404, "model_not_found", says)


def test_all_models_are_listed_with_what_they_are(zoo: Service) -> None:
    listed = as_schema(ModelList, zoo.client.get("/models").content)["models"]
    assert [(model["name"], model["version"]) for model in listed] == [
        ("alpha", 2),
        ("digits", 9),
        ("digits", 10),
        ("twin", 1),
        ("twin", 2),
    ]
    assert f"serves {', '.join('{name}/{version} on {device}'.format(**model) for model in listed)} at" in zoo.line
    assert all((m["input"]["width"], m["input"]["height"]) == (WIDTH, HEIGHT) for m in listed)
    assert listed[0]["classes"] == [f"alpha-2-{label}" for label in MANIFEST.classes]
    assert MANIFEST.accuracy is not None
    assert listed[0]["accuracy"] == MANIFEST.accuracy.model_dump()
    assert listed[0]["worth"] == WORTH.model_dump()
    assert listed[1]["worth"] is None
    assert [transform["name"] for transform in listed[-1]["transforms"]] == [TRANSFORM.name, "second"]


def test_a_model_of_two_transformers_answers_for_both(zoo: Service) -> None:
    answer, alone = predict(zoo, model="twin", version=1), predict(zoo, model="digits")
    first, second = answer["transforms"]
    assert (first["name"], second["name"]) == (TRANSFORM.name, "second")
    assert first["kind"] == second["kind"] == TRANSFORM.kind
    for field in ("theta", "corners", "rectified"):
        assert answer[field] == first[field] == alone[field], "the answer's own are the first branch's"
    assert second["theta"] == (-np.array(first["theta"])).tolist()
    mirrored = np.array([WIDTH, HEIGHT]) - np.array(first["corners"])
    assert difference(np.array(second["corners"]), mirrored) < 1e-6
    assert second["rectified"] == first["rectified"]
    assert second["parameters"] == [-number for number in first["parameters"]]
    _, golden = ARTIFACT.golden()
    assert difference(np.array(first["parameters"]), golden[TRANSFORM.parameters][0].ravel()) < 1e-3


def test_the_answers_own_theta_is_that_of_the_last_look(zoo: Service) -> None:
    answer = predict(zoo, model="twin", version=2)
    first, last = answer["transforms"]
    assert first["theta"] != last["theta"]
    for field in ("theta", "corners", "rectified"):
        assert answer[field] == last[field]


def test_a_model_of_one_transformer_says_nothing_of_several(zoo: Service) -> None:
    assert "transforms" not in predict(zoo, model="digits")


def test_neither_transformer_is_encoded_when_that_is_not_asked_for(zoo: Service) -> None:
    answer = predict(zoo, model="twin", rectified="none")
    assert [transform["rectified"] for transform in answer["transforms"]] == [None, None]


def test_a_torchscript_model_answers_like_an_onnx_one(
    trained_run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    models: Path = tmp_path_factory.mktemp("scripts")
    exported = export_run(trained_run, TorchScriptRuntime(), Destination(models, "script", None))
    (images, golden), manifest = read_artifact(exported.folder).golden(), exported.manifest
    with start_service("--models", models, "--torchscript", "true") as service:
        (listed,) = service.client.get("/models").json()["models"]
        assert (listed["name"], listed["version"], listed["runtime"]) == ("script", 1, "torchscript")
        for index, image in enumerate(images):
            answer = predict(service, encode(image[..., 0]), top_k=1000)
            found = {entry["index"]: entry["probability"] for entry in answer["predictions"]}
            expected = golden[manifest.probabilities][index]
            assert difference(np.array([found[i] for i in range(len(found))]), expected) < 1e-3
            assert difference(read(answer["rectified"]), golden[manifest.transforms[0].rectified][index, ..., 0]) <= 2
        assert without_time(predict(service)) == without_time(predict(service))
        well(service)


def test_a_model_file_alone_is_served_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "handwriting.onnx"
    file.write_bytes(ARTIFACT.model)
    with start_service("--models", file) as service:
        assert predict(service)["model"] == {"name": "handwriting", "version": 1}
        well(service)


def test_a_model_file_alone_in_a_version_folder_is_served(tmp_path: Path) -> None:
    folder = tmp_path / "digits" / "4"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(ARTIFACT.model)
    (folder.parent / "config.pbtxt").write_text("for Triton")
    with start_service("--models", tmp_path) as service:
        assert predict(service)["model"] == {"name": "digits", "version": 4}


def test_torchscript_is_refused_unless_it_is_allowed(trained_run: Run, tmp_path: Path) -> None:
    export_run(trained_run, TorchScriptRuntime(), Destination(tmp_path, "script"))
    refused_start = fail_to_start("--models", tmp_path)
    assert refused_start.returncode == 1
    assert "--torchscript true" in refused_start.stderr
    assert refused_start.stderr.count("error: ") == 1


def test_a_program_for_pytorch_is_refused_with_the_cure(trained_run: Run, tmp_path: Path) -> None:
    export_run(trained_run, ProgramRuntime(), Destination(tmp_path, "program"))
    refused_start = fail_to_start("--models", tmp_path)
    assert refused_start.returncode == 1
    assert "export it to ONNX" in refused_start.stderr
