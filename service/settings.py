"""Settings: from ``STN_*`` in the environment or the same-named flags of ``python -m service``, which win."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from service.errors import SettingsError

PREFIX = "STN_"
PROGRAM = "python -m service"
Count = Annotated[int, Field(ge=1)]
Place = Annotated[str, BeforeValidator(os.fspath)]
"""A path or URL."""
REFERENCE = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(/[1-9][0-9]{0,8})?"
References = Annotated[str, Field(pattern=rf"^({REFERENCE}(,{REFERENCE})*)?$")]
"""``NAME`` or ``NAME/VERSION``, separated by commas."""
VERSIONED = REFERENCE.removesuffix("?")
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Bound = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""0 for none."""


class Settings(BaseSettings):
    """Serve the models in a folder. Every flag can be given in the environment too: --max-batch is STN_MAX_BATCH."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        frozen=True,
        cli_prog_name=PROGRAM,
        cli_kebab_case=True,
        cli_hide_none_type=True,
    )

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for all interfaces")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    grpc_port: int = Field(
        -1, ge=-1, le=65535, description="port for gRPC (extra `grpc`); 0 takes a free one; -1: no gRPC"
    )
    grpc_certificate: str = Field("", description="certificate chain (PEM) for TLS over gRPC; empty: no TLS")
    grpc_private_key: str = Field("", description="private key of that certificate (PEM, without a password)")
    grpc_client_authority: str = Field(
        "",
        description="certificates (PEM) of the authority from which clients of gRPC must have one; empty: any client",
    )
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9_.~-]+)*$",
        description="path at which a proxy offers the service, like /ml; the proxy strips it",
    )
    forwarded_allow_ips: str = Field(
        "",
        description="trusted proxies, whose X-Forwarded-For and X-Forwarded-Proto are used: addresses and networks, "
        "separated by commas, or *; empty: none",
    )
    keep_alive_s: Count = Field(
        75, description="seconds that a connection may be idle; must be longer than a proxy in front keeps it"
    )
    models: Place = Field(
        "models",
        min_length=1,
        description="folder of the models, laid out as NAME/VERSION, or its URL, like"
        " s3://bucket/models (extra `remote`)",
    )
    models_cache: Path = Field(
        Path("~/.cache/stn-serve"), description="folder for the copy of the models if STN_MODELS is a URL"
    )
    verify_key: Place = Field(
        "",
        description="public key (elliptic curve, PEM) for the signatures that models must have (extra `signing`);"
        " empty: models need no signature",
    )
    torchscript: bool = Field(
        False, description="serve TorchScript models too; such a file is a program, so trust its author"
    )
    load: References = Field(
        "",
        description="models to load at the start, as NAME or NAME/VERSION, separated by commas; empty: all in the "
        "folder",
    )
    versions: str = Field(
        "all",
        pattern=r"^(all|latest(:[1-9][0-9]{0,2})?)$",
        description="versions of each model to serve: all, latest, or for example latest:2",
    )
    default: References = Field(
        "",
        description="default versions, for example digits/2,signs; the first entry is also the default model; empty:"
        " the highest version of each model, and the first model by name",
    )
    poll_s: int = Field(0, ge=0, description="seconds between scans of the models folder; 0: never")
    load_timeout_s: Count = Field(300, description="seconds that loading a model may take while the service runs")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where models run; auto uses a GPU if there is one, cuda refuses to start without one"
    )
    workers: Count = Field(1, description="processes that serve requests, each with its own models and queues")
    threads: int = Field(0, ge=0, description="CPU threads of one inference; 0: the runtime decides")
    max_batch: Count = Field(64, description="most pictures in one inference")
    decode_threads: int = Field(0, ge=0, description="threads that decode pictures; 0: one for each core")
    decode_processes: int = Field(
        2,
        ge=0,
        description="processes that decode expensive pictures and are killed at the deadline; they start when first "
        "needed; 0: decode in threads only",
    )
    openvino: bool = Field(False, description="run ONNX models on the CPU with OpenVINO (extra `openvino`)")
    cuda_graphs: bool = Field(False, description="replay CUDA graphs on a GPU (ONNX); not measured yet")
    fast_path: bool = Field(
        True,
        description="answer POST /predict and /predict/batch without ASGI; off is slower and gives the same answers",
    )
    busy_poll_us: int = Field(
        0,
        ge=0,
        le=10_000,
        description="microseconds of busy polling after an answer to a single client; it lowers latency and costs "
        "idle CPU; 0: none",
    )
    max_queue: Count = Field(1024, description="most pictures in flight for one model; more are rejected with 429")
    max_queue_bytes: Count = Field(
        256 * 2**20, description="most bytes of pictures in flight for one model; more are rejected with 429"
    )
    max_bytes: Count = Field(10 * 2**20, description="largest picture and largest body of POST /predict, in bytes")
    max_json_bytes: Count = Field(
        2**20, description="most bytes of JSON in a body, not counting pictures in base64; send tensors as binary data"
    )
    max_pixels: Count = Field(50_000_000, description="largest picture, width x height")
    max_side: Count = Field(16_384, description="longest side of a picture, in pixels")
    max_pictures: Count = Field(256, description="most pictures in one request, regions and views included")
    max_batch_bytes: Count = Field(64 * 2**20, description="largest body of POST /predict/batch, in bytes")
    max_rectified_pixels: Count = Field(
        12_000_000,
        description="most pixels of the rectified images of one response that are sampled from the uploaded picture;"
        " rectified_size=source is scaled down, a larger rectified_size=HxW is rejected",
    )
    max_source_bytes: Count = Field(
        512 * 2**20,
        description="memory of uploaded pictures that are held until rectified images have been sampled from them;"
        " further ones wait",
    )
    max_streams: Count = Field(64, description="most open connections of /stream in each worker; more are refused")
    timeout_ms: Count = Field(
        10_000,
        description="milliseconds from a picture's arrival to its answer, otherwise 504; X-Timeout-Ms shortens it",
    )
    header_timeout_s: Count = Field(
        10, description="seconds that the head of a request may take to arrive, otherwise 408"
    )
    request_timeout_s: Count = Field(60, description="seconds that a request may take to arrive, otherwise 408")
    inference_timeout_s: Count = Field(30, description="seconds after which an inference is given up")
    shutdown_timeout_s: Count = Field(
        30, description="seconds that requests in flight have to finish when the service stops"
    )
    api_keys: str = Field(
        "", description="API keys as NAME:HASH,... from `python -m service key NAME`; empty: anyone may use the service"
    )
    api_keys_file: str = Field("", description="API keys from a file, one NAME:HASH a line")
    admin_keys: str = Field(
        "", description="keys that may also load and unload models, in the same form; empty: these routes are closed"
    )
    admin_keys_file: str = Field("", description="admin keys from a file, one NAME:HASH a line")
    metrics_need_key: bool = Field(False, description="require a key at /metrics too, if there are API keys")
    rate_limit: str = Field(
        "",
        description="requests that each key, or without keys each address, may send to each process, like 100/second"
        " or 10/second;1000/hour; more are rejected with 429; empty: no limit",
    )
    cors_origins: str = Field(
        "", description="origins whose web pages may use the service: https://a.example,... or *; empty: none"
    )
    ui: bool = Field(True, description="serve the page at /")
    stream: bool = Field(True, description="answer pictures on a WebSocket at /stream")
    response_cache_bytes: int = Field(
        0,
        ge=0,
        description="memory of answers that are kept for requests with an equal picture and equal options, in each"
        " worker; the least recently used ones give way; 0: no cache",
    )
    response_cache_across_keys: bool = Field(
        False, description="answer a client from what was kept for clients with other API keys"
    )
    rollout: str = Field(
        "",
        pattern=rf"^({VERSIONED}(,{VERSIONED})*)?$",
        description="versions to roll out from the start beside the default versions of their models, for example "
        "digits/3; empty: none",
    )
    rollout_shadow: Share = Field(
        0.1,
        description="share of the default version's pictures that the new version answers too, for comparison alone",
    )
    rollout_canary: Share = Field(0.0, description="share of the callers that the new version answers instead")
    promote_pictures: int = Field(
        0, ge=0, description="compared pictures after which the new version becomes the default by itself; 0: never"
    )
    promote_agreement: Share = Field(0.995, description="share of pictures with the same class that this needs")
    promote_corner_p95_px: Bound = Field(
        0.0, description="95th percentile of the distance of corners, in pixels, that this allows; 0: any"
    )
    promote_p99_ratio: Bound = Field(
        0.0, description="99th percentile of the inference time, relative to the default's, that this allows; 0: any"
    )
    capture: str = Field("", description="folder to write captured pictures to, by model, for training; empty: none")
    capture_share: Share = Field(0.1, description="share of the qualifying pictures that is captured")
    capture_below: Share = Field(
        0.6, description="a picture qualifies if its probability, or its reliability if asked for, is below this"
    )
    capture_pictures: Count = Field(1000, description="most captured pictures in the folder")
    capture_bytes: Count = Field(256 * 2**20, description="most bytes of captured pictures in the folder")
    capture_days: Count = Field(30, description="days after which a captured picture is deleted")
    drift_window: int = Field(
        1000,
        ge=0,
        description="latest pictures of a model that drift is computed from, in each worker; 0: no drift detection",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level to log")
    log_format: Literal["json", "console"] = Field("json", description="one JSON object a line, or text for people")
    access_log: Literal["all", "refused", "none"] = Field(
        "all", description="requests that get a log line; refused are those with status 400 and above"
    )
    traces: bool = Field(
        False, description="send traces to the OpenTelemetry collector that OTEL_EXPORTER_OTLP_ENDPOINT names"
    )

    @property
    def models_folder(self) -> Path:
        """The folder of the models, or of their copy if `models` is a URL."""
        if not self.has_remote_models:
            return Path(self.models)
        return self.models_cache.expanduser() / hashlib.sha256(self.models.encode()).hexdigest()[:16]

    @property
    def has_remote_models(self) -> bool:
        """Whether `models` is a URL."""
        return "://" in self.models

    @property
    def admin(self) -> bool:
        """Whether there is anybody who may load and unload models."""
        return bool(self.admin_keys or self.admin_keys_file)


def load_settings(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings, flags before environment.

    Raises:
        SettingsError: a setting is unknown or wrong; the message is one line and names it.
        SystemExit: ``--help`` was asked for.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    try:
        flags: CliSettingsSource[object] = CliSettingsSource(
            Settings, cli_parse_args=list(arguments), cli_exit_on_error=False
        )
        return Settings(_cli_settings_source=flags)
    except SourceError as error:
        raise SettingsError(f"{error.__cause__ or error}; see {PROGRAM} --help") from None
    except ValidationError as error:
        problems = [f"{e['loc'][0]}={e['input']!r}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"wrong setting {'; '.join(problems)}; see {PROGRAM} --help") from None
