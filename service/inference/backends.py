"""Runtimes behind one interface, which maps a batch of pictures to named outputs.

Only TorchScript imports torch.
"""

import ctypes
import io
import warnings
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime
import structlog
from numpy.typing import NDArray

from export.format.artifact import Artifact, Outputs, Tensor
from service.errors import DeviceError, ModelLoadError
from service.inference.io_binding import BoundSession

Device = Literal["auto", "cpu", "cuda"]
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
NO_CUDA = (
    "device=cuda, but {reason}; install the `cuda` extra and an NVIDIA driver for CUDA 13, "
    "in a container add the GPU (docker-compose.gpu.yml), or choose device=auto or cpu"
)

log = structlog.get_logger(__name__)


class Backend(Protocol):
    """A loaded model. `run` is called by one thread at a time."""

    device: str
    """``cpu`` or ``cuda``."""

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Map ``(N, H, W, C)`` uint8 to the outputs of the manifest by name, with N rows each."""


def open_backend(
    artifact: Artifact, device: Device, threads: int, *, cuda_graphs: bool = False, openvino: bool = False
) -> Backend:
    """Load ``artifact`` on ``device``; ``threads=0`` leaves the number of CPU threads to the runtime.

    ``cuda_graphs`` has ONNX Runtime replay captured CUDA graphs instead of launching each kernel.
    ``openvino`` runs ONNX models with OpenVINO on the CPU instead of ONNX Runtime.

    Raises:
        DeviceError: ``device`` is cuda and cannot be used.
        ModelLoadError: the runtime cannot load the model.
    """
    if artifact.manifest.runtime == "onnx" and openvino:
        return OpenVinoBackend(artifact, device, threads)
    if artifact.manifest.runtime == "onnx":
        return OnnxBackend(artifact, device, threads, cuda_graphs=cuda_graphs)
    if artifact.manifest.runtime == "program":
        raise ModelLoadError(
            f"{artifact.folder} is a torch.export program, which the service cannot run; export it to ONNX"
        )
    return TorchScriptBackend(artifact, device, threads)


class OnnxBackend:
    """ONNX Runtime on CUDA if requested or available, else on the CPU."""

    def __init__(self, artifact: Artifact, device: Device, threads: int, *, cuda_graphs: bool = False) -> None:
        """See `open_backend`."""
        self._outputs = list(artifact.manifest.outputs)
        self._input = artifact.manifest.input.name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that spin while they wait take the core that decodes the next picture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        reason = cuda_obstacle() if device != "cpu" else None
        if device == "cuda" and reason:
            raise DeviceError(NO_CUDA.format(reason=reason))
        wants_cuda = device != "cpu" and not reason
        providers: list[str | tuple[str, dict[str, Any]]] = [CPU]
        if wants_cuda:
            onnxruntime.preload_dlls()
            providers = [(CUDA, {"use_tf32": 0, "enable_cuda_graph": int(cuda_graphs)}), CPU]
        try:
            self._session = onnxruntime.InferenceSession(artifact.model, options, providers=providers)
        except Exception as error:
            raise ModelLoadError(f"ONNX Runtime cannot load {artifact.model_file}: {first_line(error)}") from error
        self.device = "cuda" if self._session.get_providers()[0] == CUDA else "cpu"
        if wants_cuda and self.device == "cpu":
            reason = "ONNX Runtime could not start its CUDA provider (see the lines above)"
            if device == "cuda":
                raise DeviceError(NO_CUDA.format(reason=reason))
            log.warning("no_cuda", reason=reason, using="cpu", cure="install the `cuda` extra")
        check_form(self._session, artifact)
        self._bound = None
        if self.device == "cuda":
            self._bound = BoundSession(self._session, self._input, self._outputs, "cuda", graphs=cuda_graphs)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        if self._bound:
            return self._bound.run(images)
        answers = self._session.run(self._outputs, {self._input: images})
        return dict(zip(self._outputs, answers, strict=True))


class OpenVinoBackend:
    """OpenVINO on the CPU, with the same precision as ONNX Runtime."""

    def __init__(self, artifact: Artifact, device: Device, threads: int) -> None:
        """See `open_backend`."""
        try:
            from openvino import Core
        except ImportError as error:
            raise ModelLoadError("STN_OPENVINO needs OpenVINO; pip install 'stn-serve[openvino]'") from error
        if device == "cuda":
            raise DeviceError("OpenVINO runs models on the CPU only; choose device=cpu, or leave STN_OPENVINO out")
        self.device = "cpu"
        self._outputs = list(artifact.manifest.outputs)
        self._input = artifact.manifest.input.name
        # By default it computes with fewer bits on processors that can, which changes the answers.
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            stated = onnxruntime.InferenceSession(artifact.model, providers=[CPU])
            core = Core()
            self._request = core.compile_model(core.read_model(artifact.model), "CPU", options).create_infer_request()
        except Exception as error:
            raise ModelLoadError(f"OpenVINO cannot load {artifact.model_file}: {first_line(error)}") from error
        check_form(stated, artifact)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        answers = self._request.infer({self._input: images}, share_inputs=True)
        return {name: answers[name] for name in self._outputs}


class TorchScriptBackend:
    """libtorch on CUDA if requested or available, else on the CPU."""

    def __init__(self, artifact: Artifact, device: Device, threads: int) -> None:
        """See `open_backend`."""
        try:
            import torch
        except ImportError as error:
            raise ModelLoadError(
                f"{artifact.folder} is TorchScript, which needs torch; install the `train` extra or export it to ONNX"
            ) from error
        self._torch = torch
        self._outputs = artifact.manifest.outputs
        if device == "cuda" and not torch.cuda.is_available():
            raise DeviceError(NO_CUDA.format(reason="torch finds no usable GPU"))
        self.device = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        if threads:
            torch.set_num_threads(threads)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*torch.jit")  # deprecated by torch, but kept
                self._script = torch.jit.load(io.BytesIO(artifact.model), map_location=self.device)  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ModelLoadError(f"torch cannot load {artifact.model_file}: {first_line(error)}") from error

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        with self._torch.inference_mode():
            answers = self._script(self._torch.from_numpy(images).to(self.device))
        return {name: answer.cpu().numpy() for name, answer in zip(self._outputs, answers, strict=True)}


def check_form(session: onnxruntime.InferenceSession, artifact: Artifact) -> None:
    """Raise `ModelLoadError` unless the inputs and outputs of ``session`` match the manifest."""
    manifest = artifact.manifest
    stated = {tensor.name: tensor for tensor in (manifest.image(), *manifest.answers().values())}
    for node in (*session.get_inputs(), *session.get_outputs()):
        tensor = stated.pop(node.name, None)
        if tensor is None or not fits(node, tensor):
            raise ModelLoadError(
                f"{artifact.model_file}: {node.name} is {node.type} {node.shape}, which differs from the manifest; "
                "export the model again"
            )
    if stated:
        raise ModelLoadError(f"{artifact.model_file} has no {', '.join(stated)}; export the model again")


def fits(node: onnxruntime.NodeArg, tensor: Tensor) -> bool:
    """Whether ``node`` is ``tensor`` with a batch axis of any size. Axes that ONNX leaves open match any size."""
    batch, *sides = node.shape or [0]
    return (
        TYPES.get(node.type) == tensor.type
        and not isinstance(batch, int)
        and len(sides) == len(tensor.shape)
        and all(side == stated for side, stated in zip(sides, tensor.shape, strict=True) if isinstance(side, int))
    )


def cuda_obstacle() -> str | None:
    """Why ONNX Runtime cannot use a GPU, or None. The driver is asked, since ONNX Runtime would log errors."""
    if CUDA not in onnxruntime.get_available_providers():
        return "this ONNX Runtime was built without CUDA"
    try:
        driver = ctypes.CDLL("nvcuda.dll" if hasattr(ctypes, "WinDLL") else "libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver"
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver shows no GPU"
    return None


def first_line(error: Exception) -> str:
    """The message of ``error`` without the trace that some libraries add."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
