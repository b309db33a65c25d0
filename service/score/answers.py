"""The columns of the output."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from service.inference.engine import Answer
from service.inference.outputs import corners
from service.score.rows import Row

POINTS = pa.list_(pa.list_(pa.float32()))
RELIABILITY = pa.struct(
    [
        ("views", pa.int32()),
        ("label_agreement", pa.float32()),
        ("corner_deviation_px", pa.float32()),
        ("angle_deviation_deg", pa.float32()),
        ("angle_follows", pa.bool_()),
        ("score", pa.float32()),
        ("within_px", pa.float32()),
        ("second_look", pa.bool_()),
    ]
)
TRANSFORM = pa.struct([("name", pa.string()), ("kind", pa.string()), ("theta", POINTS), ("corners", POINTS)])
SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("classes", pa.list_(pa.string())),
        ("probabilities", pa.list_(pa.float32())),
        ("theta", POINTS),
        ("corners", POINTS),
        ("transforms", pa.list_(TRANSFORM)),
        ("reliability", RELIABILITY),
        ("rectified", pa.string()),
        ("error", pa.string()),
        ("message", pa.string()),
    ]
)


class Failure(NamedTuple):
    """Why a picture has no prediction."""

    code: str
    message: str


def to_batch(
    rows: Sequence[Row], answers: Sequence[Answer | Failure], files: Sequence[str | None], top_k: int
) -> pa.RecordBatch:
    """Return the output of ``rows``, with the ``top_k`` most probable classes and the rectified ``files``."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for row, answer, file in zip(rows, answers, files, strict=True):
        described = describe_failure(answer) if isinstance(answer, Failure) else describe_answer(answer, top_k)
        described |= {"row": row.number, "path": row.path, "rectified": file}
        for name, column in columns.items():
            column.append(described.get(name))
    return pa.RecordBatch.from_pydict(columns, SCHEMA)


def describe_failure(failure: Failure) -> dict[str, Any]:
    """Return the columns of a picture without a prediction."""
    return {"error": failure.code, "message": failure.message}


def describe_answer(answer: Answer, top_k: int) -> dict[str, Any]:
    """Return the columns of a prediction."""
    manifest, output = answer.model.manifest, answer.output
    ranking = output.ranking[:top_k].tolist()
    outlines = [corners(transform.region, answer.width, answer.height) for transform in output.transforms]
    return {
        "width": answer.width,
        "height": answer.height,
        "classes": [manifest.label(index) for index in ranking],
        "probabilities": output.probabilities[:top_k],
        "theta": output.transforms[manifest.main].theta,
        "corners": outlines[manifest.main],
        "reliability": None if answer.reliability is None else answer.reliability._asdict(),
        "transforms": None
        if len(outlines) == 1
        else [
            {"name": stated.name, "kind": stated.kind, "theta": transform.theta, "corners": outline}
            for stated, transform, outline in zip(manifest.transforms, output.transforms, outlines, strict=True)
        ],
    }
