"""Builds the JSON of predictions in the form of `service.schemas.answers`, which tests verify.

It is made of plain dictionaries, since validation would cost more than the construction.
"""

import base64

from service.inference.engine import Answer
from service.inference.outputs import ModelOutput, corners, rank
from service.inference.sampling_grid import sample_points
from service.inference.views.reliability import Reliability
from service.responses import Json


def describe_answer(answer: Answer, top_k: int, total_ms: float) -> Json:
    """Describe a prediction as a `service.schemas.answers.Prediction`."""
    model, output, times = answer.model, answer.output, answer.timings
    ranking, probabilities = output.ranking[:top_k].tolist(), output.probabilities[:top_k].tolist()
    placed = answer.in_picture
    transforms = [describe_transform(answer, placed, index) for index in range(len(output.transforms))]
    main = transforms[answer.model.manifest.main]
    return {
        "model": {"name": model.name, "version": model.version},
        "predictions": [
            {"label": model.manifest.label(index), "index": index, "probability": probability}
            for index, probability in zip(ranking, probabilities, strict=True)
        ],
        **({} if model.manifest.sequence is None else {"sequence": describe_sequence(answer, top_k)}),
        "theta": main["theta"],
        "corners": main["corners"],
        "rectified": main["rectified"],
        **({"transforms": transforms} if len(transforms) > 1 else {}),
        **({} if answer.crop is None else {"region": list(answer.crop)}),
        **({"reliability": describe_reliability(answer.reliability)} if answer.reliability else {}),
        "batch_size": answer.batch_size,
        "timings_ms": {
            "decode": round(times.decode, 3),
            "queue": round(times.queue, 3),
            "inference": round(times.inference, 3),
            "encode": round(times.encode, 3),
            "total": round(total_ms, 3),
        },
    }


def describe_sequence(answer: Answer, top_k: int) -> list[Json]:
    """Describe each object of a sequence as a `service.schemas.answers.ObjectPrediction`."""
    manifest, output = answer.model.manifest, answer.output
    ranking, probabilities = rank(output.outputs[manifest.probabilities][output.row])
    return [
        {
            "predictions": [
                {"label": manifest.classes[index], "index": index, "probability": probability}
                for index, probability in zip(best[:top_k].tolist(), chances[:top_k].tolist(), strict=True)
            ]
        }
        for best, chances in zip(ranking, probabilities, strict=True)
    ]


def describe_transform(answer: Answer, placed: ModelOutput, index: int) -> Json:
    """Describe a transformer's result, ``placed`` in the picture, as a `service.schemas.answers.TransformResult`."""
    result = placed.transforms[index]
    transform = answer.model.manifest.transforms[index]
    file = None
    if answer.rectified:
        found = answer.rectified[index]
        data = base64.b64encode(found.content).decode()
        file = {"format": found.format, "width": found.width, "height": found.height, "data": data}
    return {
        "name": transform.name,
        "kind": transform.kind,
        "theta": result.theta,
        "parameters": result.parameters,
        "corners": corners(result.region, answer.width, answer.height),
        "rectified": file,
    }


def describe_reliability(found: Reliability) -> Json:
    """Describe it as a `service.schemas.answers.Reliability`."""
    return {
        "views": found.views,
        "label_agreement": round(found.label_agreement, 4),
        "corner_deviation_px": round(found.corner_deviation_px, 4),
        "angle_deviation_deg": round(found.angle_deviation_deg, 4),
        "angle": "follows" if found.angle_follows else "cannot tell",
        "score": None if found.score is None else round(found.score, 4),
        "within_px": None if found.within_px is None else round(found.within_px, 4),
        "second_look": found.second_look,
    }


def add_points(description: Json, answer: Answer, side: int) -> None:
    """Add the positions of ``side`` x ``side`` points of each rectified image to the result of `describe_answer`."""
    manifest, placed, size = answer.model.manifest, answer.placed, (answer.width, answer.height)
    indices = range(len(manifest.transforms))
    points = [(sample_points(answer.output, manifest, index, side, placed) * size).tolist() for index in indices]
    description["points"] = points[manifest.main]
    for transform, found in zip(description.get("transforms", ()), points, strict=False):
        transform["points"] = found
