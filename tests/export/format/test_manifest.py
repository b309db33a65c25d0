"""The manifest and its committed JSON Schema say the same, and manifests of the first format are read."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from export.format.errors import ArtifactError
from export.format.manifest import FORMAT_VERSION, schema
from export.format.reading import read_manifest
from tests.export.manifests import manifest

ROOT = Path(__file__).parents[3]
SCHEMAS = {
    version: json.loads((ROOT / "docs" / "extend" / f"manifest-{version}.schema.json").read_text())
    for version in (1, 2, 3)
}
FIRST = json.loads((ROOT / "tests" / "data" / "manifest-1.json").read_text())
BUNDLED = sorted((ROOT / "models").glob("*/*/manifest.json"))

KEYS = ("theta", "parameters", "rectified")


def fields() -> dict[str, Any]:
    """A manifest as JSON holds it."""
    content: dict[str, Any] = json.loads(manifest().model_dump_json())
    return content


def test_the_committed_schema_is_that_of_the_current_format() -> None:
    assert SCHEMAS[FORMAT_VERSION] == schema(), "write it again: export.format.manifest.schema()"


def test_the_schema_is_one() -> None:
    for content in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(content)


@pytest.mark.parametrize("file", BUNDLED, ids=lambda file: str(file.relative_to(ROOT)))
def test_bundled_manifests_satisfy_the_schema_of_their_format(file: Path) -> None:
    content = json.loads(file.read_text())
    jsonschema.validate(content, SCHEMAS[content["format_version"]])


@pytest.mark.parametrize(
    "change",
    [
        {"classes": [1, 2]},
        {"unknown": 1},
        {"opset": "18"},
        {"precision": "float8"},
        {"runtime": "pickle"},
        {"convention": "another"},
        {"input": fields()["input"] | {"height": 10**9}},
        {"input": fields()["input"] | {"height": 0}},
        {"input": fields()["input"] | {"channels": 4}},
        {"transforms": [fields()["transforms"][0] | {"parameters_shape": [10**9, 2]}]},
        {"transforms": []},
        {"files": {"model.onnx": {"bytes": 1, "sha256": "short"}}},
        {"accuracy": fields()["accuracy"] | {"accuracy": 1.5}},
        {"tolerance": None},
    ],
    ids=str,
)
def test_what_the_schema_refuses_is_refused_when_it_is_read(change: dict[str, Any]) -> None:
    content = fields() | change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, SCHEMAS[FORMAT_VERSION])
    with pytest.raises(ArtifactError, match="the manifest"):
        read_manifest(json.dumps(content).encode(), "the manifest")


OPTIONAL = {
    "format_version",
    "convention",
    "price",
    "reference",
    "temperature",
    "task",
    "features",
    "worth",
    "reliability",
    "sequence",
}


@pytest.mark.parametrize("name", sorted(fields().keys() - OPTIONAL))
def test_no_field_may_be_missing(name: str) -> None:
    content = {key: value for key, value in fields().items() if key != name}
    with pytest.raises(ArtifactError, match=name):
        read_manifest(json.dumps(content).encode(), "the manifest")


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert read_manifest(manifest().model_dump_json().encode(), "it") == manifest()


def test_the_first_format_is_read() -> None:
    jsonschema.validate(FIRST, SCHEMAS[1])
    found = read_manifest(json.dumps(FIRST).encode(), "it")
    assert found.format_version == FORMAT_VERSION
    assert (found.precision, found.opset, found.tolerance.probabilities) == ("float32", 18, 1e-3)
    assert [t.parameters_shape for t in found.transforms] == [(2, 3)]
    assert found.parity.probabilities == FIRST["parity"]["probabilities"]
    assert found.files.keys() == FIRST["files"].keys()


def test_places_and_shapes_of_several_transformers_are_read_from_the_first_format() -> None:
    first = FIRST["transforms"][0]
    names = ["branch2_step3", "features"]
    content = FIRST | {
        "recipe": FIRST["recipe"] | {"control_points": 5},
        "transforms": [
            first
            | {"name": name, "kind": "tps"}
            | {key: f"{key}_{name}" for key in ("theta", "parameters", "rectified")}
            for name in names
        ],
        "outputs": ["probabilities", *(f"{key}_{n}" for n in names for key in KEYS)],
    }
    one, other = read_manifest(json.dumps(content).encode(), "it").transforms
    assert (one.branch, one.step, one.reads, one.parameters_shape) == (2, 3, "picture", (25, 2))
    assert (other.branch, other.step, other.reads) == (1, 1, "features")


@pytest.mark.parametrize("change", [{"transforms": None}, {"recipe": None}, {"parity": {}}, {"transforms": [{}]}])
def test_a_damaged_manifest_of_the_first_format_is_a_clear_error(change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="the manifest"):
        read_manifest(json.dumps(FIRST | change).encode(), "the manifest")


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 10**9])
def test_a_newer_format_is_refused_with_the_cure(version: int) -> None:
    with pytest.raises(ArtifactError, match="upgrade stn-serve"):
        read_manifest(json.dumps({"format_version": version}).encode(), "the manifest")


@pytest.mark.parametrize("version", [0, -1, True, 1.5, "2", None, [2]])
def test_a_format_that_never_was_is_refused(version: object) -> None:
    with pytest.raises(ArtifactError, match="format_version"):
        read_manifest(json.dumps(fields() | {"format_version": version}).encode(), "the manifest")


FEATURES: dict[str, Any] = {
    "task": "features",
    "classes": [],
    "probabilities": "",
    "features": [{"name": "output", "shape": [18, 68]}],
    "outputs": ["output", "theta", "rectified"],
}


def test_the_second_format_is_read() -> None:
    second = {
        key: value for key, value in fields().items() if key not in ("task", "features", "reliability", "sequence")
    }
    second["transforms"] = [{key: value for key, value in second["transforms"][0].items() if key != "sampling"}]
    second |= {"format_version": 2}
    jsonschema.validate(second, SCHEMAS[2])
    assert read_manifest(json.dumps(second).encode(), "it") == manifest()


def test_a_network_that_is_no_classifier_has_raw_outputs_instead_of_classes() -> None:
    content = fields() | FEATURES
    jsonschema.validate(content, SCHEMAS[FORMAT_VERSION])
    found = read_manifest(json.dumps(content).encode(), "it").answers()
    assert {name: tensor.shape for name, tensor in found.items()}["output"] == (18, 68)


def test_a_straightener_has_a_single_class() -> None:
    content = fields() | {"classes": ["card"], "accuracy": None}
    jsonschema.validate(content, SCHEMAS[FORMAT_VERSION])
    assert read_manifest(json.dumps(content).encode(), "it").answers()["probabilities"].shape == (1,)


def test_a_sequence_has_probabilities_of_each_object_and_labels_that_name_all_of_them() -> None:
    content = fields() | {"sequence": 3}
    jsonschema.validate(content, SCHEMAS[FORMAT_VERSION])
    found = read_manifest(json.dumps(content).encode(), "it")
    assert found.answers()["probabilities"].shape == (3, 2)
    assert [found.label(index) for index in (0, 1, 4, 7)] == [
        "cat cat cat",
        "cat cat dog",
        "dog cat cat",
        "dog dog dog",
    ]
    assert manifest().label(1) == "dog"


@pytest.mark.parametrize(
    "change",
    [{"sequence": 1}, {"sequence": 63}, {"sequence": 2, "classes": ["cat"]}, FEATURES | {"sequence": 2}],
    ids=str,
)
def test_a_sequence_that_could_not_be_told_apart_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="the manifest"):
        read_manifest(json.dumps(fields() | change).encode(), "the manifest")


@pytest.mark.parametrize(
    "change",
    [
        {"classes": []},
        {"probabilities": ""},
        {"task": "features"},
        {"features": FEATURES["features"]},
        FEATURES | {"classes": ["cat", "dog"]},
        FEATURES | {"features": []},
        FEATURES | {"probabilities": "probabilities"},
        FEATURES | {"task": "classification"},
    ],
    ids=str,
)
def test_a_task_that_its_outputs_do_not_fit_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="the manifest"):
        read_manifest(json.dumps(fields() | change).encode(), "the manifest")


def test_deep_nesting_is_no_crash() -> None:
    with pytest.raises(ArtifactError, match="the manifest"):
        read_manifest(b"[" * 200_000, "the manifest")


def test_answers_are_named_with_their_shapes_in_the_order_of_the_outputs() -> None:
    shapes = {name: (tensor.type, tensor.shape) for name, tensor in manifest().answers().items()}
    assert list(shapes) == ["probabilities", "theta", "rectified"]
    assert shapes == {
        "probabilities": ("float32", (2,)),
        "theta": ("float32", (2, 3)),
        "rectified": ("uint8", (4, 4, 1)),
    }


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([(1, 1, "picture")], 0),
        ([(1, 1, "picture"), (1, 2, "picture")], 1),
        ([(1, 1, "picture"), (1, 2, "picture"), (2, 1, "picture"), (2, 2, "picture")], 1),
        ([(1, 1, "picture"), (1, 1, "features")], 0),
    ],
)
def test_the_main_transformer_is_the_last_look_of_the_first_branch(
    places: list[tuple[int, int, str]], expected: int
) -> None:
    only = manifest().transforms[0]
    found = tuple(only.model_copy(update={"branch": b, "step": s, "reads": reads}) for b, s, reads in places)
    assert manifest().model_copy(update={"transforms": found}).main == expected
