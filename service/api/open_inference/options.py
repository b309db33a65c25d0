"""The options of POST /predict that inference requests have as parameters, and where each of them belongs."""

from export.format.artifact import Manifest
from service.api.open_inference.json_body import Parameters
from service.api.options import check_options
from service.errors import InvalidBodyError, InvalidParameterError
from service.schemas.options import AnswerOptions

TENSOR, PICTURES = "UINT8", "BYTES"
RECTIFIED_SOURCE = "rectified_source"
"""An output of every model: the rectified images as files, sampled from the pictures themselves."""
RELIABILITY = "reliability"
"""A parameter of requests, and with it an output of every classifier: the reliability of each answer, as JSON."""
ANSWER_PARAMETERS = (RELIABILITY, "views", "region", "angle_hint")
RECTIFIED_PARAMETERS = ("rectified", "rectified_size", "padding", "margin")
CURES = (
    dict.fromkeys(ANSWER_PARAMETERS, "is a parameter of the request")
    | dict.fromkeys(
        RECTIFIED_PARAMETERS, f"is a parameter of the output {RECTIFIED_SOURCE!r}, or of a request that names it"
    )
    | dict.fromkeys(("model", "version"), "is not offered; the path names the model, or model_name in gRPC")
    | {
        "top_k": "is not offered; give the output of the probabilities the parameter 'classification'",
        "points": "is not offered; POST /predict returns points",
    }
)
"""What to do with options of POST /predict where they are no parameters."""
BETWEEN_REGIONS = ";"
NO_OPTIONS = AnswerOptions()


def refuse_misplaced(parameters: Parameters, path: str, *allowed: str) -> None:
    """Refuse options of POST /predict that would be ignored.

    Raises:
        InvalidBodyError: there is one besides those that are ``allowed``.
    """
    for name in parameters:
        if name in CURES and name not in allowed:
            raise InvalidBodyError(f"{path}: {name!r} {CURES[name]}")


def read_options(parameters: Parameters, datatype: str, manifest: Manifest) -> AnswerOptions:
    """Return regions, a hint at the angle, and views, which are parameters of a request with an input of ``datatype``.

    Raises:
        InvalidBodyError: they are wrong, or not for this model or input.
        TooLargeError: there are too many regions.
    """
    refuse_misplaced(parameters, "parameters", *ANSWER_PARAMETERS, *RECTIFIED_PARAMETERS)
    given = {name: parameters[name] for name in ANSWER_PARAMETERS if name in parameters}
    if not given:
        return NO_OPTIONS
    regions = given.pop("region", None)
    pairs = [(name, str(value)) for name, value in given.items()]
    if regions is not None:
        pairs += [("region", region.strip()) for region in str(regions).split(BETWEEN_REGIONS)]
    try:
        options = check_options(pairs, AnswerOptions)
    except InvalidParameterError as error:
        raise InvalidBodyError(f"parameters: {error}") from None
    if datatype != PICTURES and (options.region or options.angle_hint):
        raise InvalidBodyError(
            f"parameters: 'region' and 'angle_hint' need pictures as files ({PICTURES}), not {TENSOR}"
        )
    if options.reliability and RELIABILITY in manifest.outputs:
        raise InvalidBodyError(f"parameters: the model has an output {RELIABILITY!r} of its own; ask POST /predict")
    if manifest.task != "classification" and (options.reliability or options.views):
        raise InvalidBodyError("parameters: 'reliability' and 'views' need a classifier, which this model is not")
    return options
