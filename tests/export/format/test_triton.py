"""The layout of a Triton model repository."""

from pathlib import Path

import pytest

from export.exporter import Destination, export_run
from export.format.errors import ArtifactError
from export.format.triton import config, write_repository
from export.torchscript import TorchScriptRuntime
from tests.export.manifests import manifest
from training.fitting.runs import Run

CONFIG = """name: "pets"
backend: "onnxruntime"
max_batch_size: 64
input [
  { name: "image" data_type: TYPE_UINT8 dims: [4, 4, 1] }
]
output [
  { name: "probabilities" data_type: TYPE_FP32 dims: [2] label_filename: "labels.txt" },
  { name: "theta" data_type: TYPE_FP32 dims: [2, 3] },
  { name: "rectified" data_type: TYPE_UINT8 dims: [4, 4, 1] }
]
dynamic_batching {
  max_queue_delay_microseconds: 1000
  default_queue_policy { max_queue_size: 1024 }
}
"""


def test_the_configuration_names_shapes_without_the_batch_axis() -> None:
    assert config("pets", manifest()) == CONFIG


def test_the_classes_are_no_labels_of_a_sequence_whose_probabilities_have_two_axes() -> None:
    found = config("pets", manifest().model_copy(update={"sequence": 3}))
    assert '{ name: "probabilities" data_type: TYPE_FP32 dims: [3, 2] }' in found


def test_versions_that_share_a_configuration_stand_side_by_side_and_others_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "pets" / "1"
    write_repository(folder, manifest(), force=False)
    write_repository(folder.with_name("2"), manifest(), force=False)
    other = manifest().model_copy(update={"classes": ("cat", "dog", "fish")})
    with pytest.raises(ArtifactError, match="describes another model"):
        write_repository(folder.with_name("3"), other, force=False)
    assert (folder.parent / "config.pbtxt").read_text() == CONFIG
    write_repository(folder.with_name("3"), other, force=True)
    assert (folder.parent / "labels.txt").read_text() == "cat\ndog\nfish\n"


def test_other_formats_are_refused(trained_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="Triton"):
        export_run(trained_run, TorchScriptRuntime(), Destination(tmp_path, "digits", triton=True))
    assert list(tmp_path.iterdir()) == []
