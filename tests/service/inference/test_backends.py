"""Both runtimes answer alike, behind one contract."""

import time
from importlib.util import find_spec

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from export.exporter import Destination, Runtime, export_run
from export.format.artifact import Artifact, Outputs, read_artifact
from export.onnx import OnnxRuntime
from export.torchscript import TorchScriptRuntime
from service.errors import DeviceError, ModelLoadError
from service.inference.backends import Backend, cuda_obstacle, open_backend
from service.repository.startup import load_models
from service.settings import Settings
from tests.conftest import REPOSITORY
from tests.service.pictures import ARTIFACT
from training.fitting.runs import Run

without_gpu = pytest.mark.skipif(cuda_obstacle() is None, reason="there is a GPU")


@pytest.fixture(scope="module", params=[OnnxRuntime, TorchScriptRuntime])
def artifact(
    request: pytest.FixtureRequest,
    trained_run: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> Artifact:
    """The small run, for each runtime in turn."""
    runtime: Runtime = request.param()
    models = tmp_path_factory.mktemp("models")
    return read_artifact(export_run(trained_run, runtime, Destination(models, "digits", 1)).folder)


@pytest.mark.parametrize("count", [1, 2, 33])
def test_golden_answers_come_back_at_any_batch(count: int, artifact: Artifact) -> None:
    images, expected = artifact.golden()
    indices = np.arange(count) % len(images)
    found = open_backend(artifact, "cpu", threads=1).run(images[indices])
    assert found.keys() == expected.keys()
    for name, answer in expected.items():
        assert found[name].dtype == answer.dtype
        np.testing.assert_allclose(found[name].astype(float), answer[indices].astype(float), atol=1e-4)


@without_gpu
def test_auto_is_the_cpu_without_a_gpu(artifact: Artifact) -> None:
    assert open_backend(artifact, "auto", threads=0).device == "cpu"


@without_gpu
def test_cuda_without_a_gpu_is_an_error_and_no_fallback(artifact: Artifact) -> None:
    with pytest.raises(DeviceError, match="device=auto"):
        open_backend(artifact, "cuda", threads=0)


def test_openvino_answers_as_the_default_does() -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    images, _ = ARTIFACT.golden()
    for count in (1, 3, len(images)):
        expected = open_backend(ARTIFACT, "cpu", threads=1).run(images[:count])
        found = open_backend(ARTIFACT, "cpu", threads=1, openvino=True).run(images[:count])
        assert found.keys() == expected.keys()
        for name, answer in expected.items():
            assert found[name].dtype == answer.dtype
            np.testing.assert_allclose(found[name].astype(float), answer.astype(float), atol=1e-4)
    with pytest.raises(DeviceError, match="on the CPU only"):
        open_backend(ARTIFACT, "cuda", threads=1, openvino=True)
    with pytest.raises(ModelLoadError, match="OpenVINO cannot load"):
        open_backend(ARTIFACT._replace(model=b"not a model"), "cpu", threads=1, openvino=True)


@pytest.mark.skipif(find_spec("openvino") is not None, reason="OpenVINO is installed")
def test_openvino_that_is_not_installed_is_said() -> None:
    with pytest.raises(ModelLoadError, match=r"pip install 'stn-serve\[openvino\]'"):
        load_models(Settings(models=REPOSITORY / "models", load="digits/3", openvino=True))


def test_a_file_that_is_no_model_is_refused(artifact: Artifact) -> None:
    broken = artifact._replace(model=b"not a model")
    with pytest.raises(ModelLoadError, match="cannot load"):
        open_backend(broken, "cpu", threads=0)


def test_models_of_either_runtime_are_loaded_and_warmed_up(artifact: Artifact) -> None:
    (model,) = load_models(Settings(models=artifact.folder.parent.parent, device="cpu", torchscript=True))
    assert (model.name, model.version, model.device) == ("digits", 1, "cpu")


def test_a_pause_while_it_warms_up_is_not_taken_for_the_models_own_time(artifact: Artifact) -> None:
    pause_s, pauses = 0.3, iter([True, False, True])

    class Interrupted:
        def __init__(self, backend: Backend) -> None:
            self.device = backend.device
            self._backend = backend

        def run(self, images: NDArray[np.uint8]) -> Outputs:
            if len(images) == 1 and next(pauses, True):
                time.sleep(pause_s)
            return self._backend.run(images)

    with capture_logs() as log:
        load_models(
            Settings(models=artifact.folder.parent.parent, device="cpu", torchscript=True),
            lambda *how: Interrupted(open_backend(*how)),
        )
    (ready,) = (line for line in log if line["event"] == "model_ready")
    assert ready["picture_ms"] < pause_s * 1000


@pytest.mark.parametrize("change", [{"height": 40}, {"name": "picture"}])
def test_a_model_that_takes_another_input_than_the_manifest_says_is_refused(change: dict[str, object]) -> None:
    manifest = ARTIFACT.manifest
    other = manifest.model_copy(update={"input": manifest.input.model_copy(update=change)})
    with pytest.raises(ModelLoadError, match="differs from the manifest"):
        open_backend(ARTIFACT._replace(manifest=other), "cpu", threads=1)


def test_a_model_that_gives_another_output_than_the_manifest_says_is_refused() -> None:
    manifest = ARTIFACT.manifest
    for classes in (("one", "two"), (*manifest.classes, "eleven")):
        with pytest.raises(ModelLoadError, match="probabilities is"):
            other = manifest.model_copy(update={"classes": classes})
            open_backend(ARTIFACT._replace(manifest=other), "cpu", threads=1)
