"""Reading manifests of the current format and of all older ones. Newer ones are rejected."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from export.format.errors import ArtifactError
from export.format.manifest import CONVENTION, FORMAT_VERSION, Manifest


def read_manifest(content: bytes, source: str) -> Manifest:
    """Read a manifest of the current format or an older one; errors refer to it as ``source``.

    Raises:
        ArtifactError: it is damaged, has a newer format, or is inconsistent.
    """
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{source} is not JSON ({error}); export the model again") from error
    found = fields.get("format_version") if isinstance(fields, dict) else None
    if type(found) is int and found > FORMAT_VERSION:
        raise ArtifactError(
            f"{source} has format version {found}, but this version of stn-serve reads only up to {FORMAT_VERSION}; "
            "upgrade stn-serve, or export the model again with this version"
        )
    try:
        while type(found) is int and found in UPGRADES:
            fields = UPGRADES[found](fields)
            found = fields["format_version"]
        return Manifest.model_validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        raise ArtifactError(f"{source}: {where}: {first['msg']}; export the model again") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ArtifactError(f"{source} is damaged ({error!r}); export the model again") from error


def from_1(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Convert format 1, which has only float32 models, to format 2."""
    shapes = {"projective": [3, 3], "tps": [fields["recipe"].get("control_points", 4) ** 2, 2]}
    transforms = []
    for transform in fields["transforms"]:
        places = {key: re.search(rf"{key}(\d+)", transform["name"]) for key in ("branch", "step")}
        place = {key: int(found[1]) if found else 1 for key, found in places.items()}
        reads = "features" if transform["name"] == "features" else "picture"
        shape = shapes.get(transform["kind"], [2, 3])
        transforms.append(transform | place | {"reads": reads, "parameters_shape": shape})
    parity = fields["parity"]
    return dict(fields) | {
        "format_version": 2,
        "convention": CONVENTION,
        "opset": 18 if fields["runtime"] == "onnx" else None,
        "precision": "float32",
        "transforms": transforms,
        "parity": parity | {"within_one_level": float(parity["rectified"] <= 1)},
        "tolerance": {"probabilities": 1e-3, "parameters": 1e-3, "rectified": 2},
    }


def from_2(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Convert format 2, which has only classifiers that were trained by this project, to format 3."""
    return dict(fields) | {"format_version": 3}


UPGRADES: Final[Mapping[int, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {1: from_1, 2: from_2}
"""Conversion of each older format to the next one."""
