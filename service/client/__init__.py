"""The Python client of the service: typed, synchronous and asynchronous, without any part of the server.

with Client("http://127.0.0.1:8000") as client:
    answer = client.predict("picture.png")
"""

from service.client.calls import Options, Picture, RectifyOptions, Region, StreamOptions
from service.client.clients import AsyncClient, Client
from service.client.errors import AnswerError, BusyError, ClientError, FileError, RefusedError, UnreachableError
from service.client.rectified import RectifiedPicture
from service.client.streams import AsyncStream, FrameAnswer, Stream
from service.schemas.answers import ErrorBody, Prediction, RegionPredictions, Reliability
from service.schemas.models import ModelInfo

__all__ = [
    "AnswerError",
    "AsyncClient",
    "AsyncStream",
    "BusyError",
    "Client",
    "ClientError",
    "ErrorBody",
    "FileError",
    "FrameAnswer",
    "ModelInfo",
    "Options",
    "Picture",
    "Prediction",
    "RectifiedPicture",
    "RectifyOptions",
    "RefusedError",
    "Region",
    "RegionPredictions",
    "Reliability",
    "Stream",
    "StreamOptions",
    "UnreachableError",
]
