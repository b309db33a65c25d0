"""A Triton model repository around an artifact: ``NAME/config.pbtxt`` and ``NAME/labels.txt`` beside ``NAME/VERSION/``.

Triton serves the highest version; one ``config.pbtxt`` describes all versions of a name. It reads nothing else of an
artifact's folder, so that the repository can be served by this project's service too.
"""

import os
from pathlib import Path

from export.errors import ArtifactError
from export.manifest import Manifest, Tensor

CONFIG, LABELS = "config.pbtxt", "labels.txt"
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
MAX_BATCH = 64
QUEUE_DELAY_US = 1000
"""How long Triton waits for a batch to fill."""
QUEUE_SIZE = 1024


def write_repository(folder: Path, manifest: Manifest, *, force: bool) -> None:
    """Write what Triton needs beside the version ``folder``; before the version itself, which makes it count.

    Raises:
        ArtifactError: another model is described there and is not to be replaced, or it cannot be written.
    """
    contents = {CONFIG: config(folder.parent.name, manifest), LABELS: "".join(f"{c}\n" for c in manifest.classes)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            file = folder.parent / name
            if file.exists() and file.read_bytes() != content.encode() and not force:
                raise ArtifactError(
                    f"{file} describes another model, and all versions of a name share it; choose another --name, "
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
    """The content of ``config.pbtxt``: shapes without the batch axis, as Triton wants them."""
    outputs = []
    for tensor in manifest.answers().values():
        labels = f' label_filename: "{LABELS}"' if tensor.name == manifest.probabilities else ""
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
    """An input or output, in protobuf's text format."""
    return f'{{ name: "{tensor.name}" data_type: {TYPES[tensor.type]} dims: {list(tensor.shape)}{more} }}'
