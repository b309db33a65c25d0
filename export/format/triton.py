"""The files of a Triton model repository: ``NAME/config.pbtxt`` and ``NAME/labels.txt`` beside ``NAME/VERSION/``.

Triton serves the highest version; one ``config.pbtxt`` describes all versions of a model. It ignores the other files of
an artifact, so this project's service can serve the same repository.
"""

import os
from pathlib import Path

from export.format.errors import ArtifactError
from export.format.manifest import Manifest, Tensor

CONFIG, LABELS = "config.pbtxt", "labels.txt"
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
MAX_BATCH = 64
QUEUE_DELAY_US = 1000
"""Time that Triton waits for a batch to fill."""
QUEUE_SIZE = 1024


def write_repository(folder: Path, manifest: Manifest, *, force: bool) -> None:
    """Write Triton's files beside the version ``folder``. This comes first, because the version activates them.

    Raises:
        ArtifactError: they describe another model and ``force`` is not set, or they cannot be written.
    """
    contents = {CONFIG: config(folder.parent.name, manifest), LABELS: "".join(f"{c}\n" for c in manifest.classes)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            file = folder.parent / name
            if file.exists() and file.read_bytes() != content.encode() and not force:
                raise ArtifactError(
                    f"{file} describes another model, and all versions share it; choose another --name, "
                    "or replace it with --force"
                )
        for name, content in contents.items():
            aside = folder.parent / f".{name}.{os.getpid()}"
            try:
                aside.write_text(content, encoding="utf-8")
                aside.replace(folder.parent / name)
            finally:
                aside.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot write {folder.parent}: {error.strerror}; choose another --out") from error


def config(name: str, manifest: Manifest) -> str:
    """Return the content of ``config.pbtxt``; Triton's shapes have no batch axis."""
    outputs = []
    labelled = manifest.probabilities if manifest.sequence is None else None  # Triton labels a single row of classes
    for tensor in manifest.answers().values():
        labels = f' label_filename: "{LABELS}"' if tensor.name == labelled else ""
        outputs.append(f"  {described(tensor, labels)}")
    return "\n".join(
        [
            f'name: "{name}"',
            'backend: "onnxruntime"',
            f"max_batch_size: {MAX_BATCH}",
            "input [",
            f"  {described(manifest.image())}",
            "]",
            "output [",
            ",\n".join(outputs),
            "]",
            "dynamic_batching {",
            f"  max_queue_delay_microseconds: {QUEUE_DELAY_US}",
            f"  default_queue_policy {{ max_queue_size: {QUEUE_SIZE} }}",
            "}",
            "",
        ]
    )


def described(tensor: Tensor, more: str = "") -> str:
    """Return an input or output in protobuf's text format."""
    return f'{{ name: "{tensor.name}" data_type: {TYPES[tensor.type]} dims: {list(tensor.shape)}{more} }}'
