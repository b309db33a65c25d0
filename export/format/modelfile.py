"""The model file as bytes: embed and extract the manifest and golden pictures, and reject unsafe content.

ONNX files are read with a minimal parser of protobuf's wire format; TorchScript and torch.export programs are zip
archives. Neither onnx nor torch is needed, no model is run, and nothing is unpickled.

    model.onnx            metadata_props: ``stn_manifest`` (JSON), ``stn_golden`` (golden.npz in base64)
    model.pt, model.pt2   ``extra/manifest.json``, ``extra/golden.base64`` (torch.export takes extra files as text)
"""

import base64
import io
import zipfile
from collections.abc import Iterator
from typing import Final, NamedTuple

from export.format.errors import ArtifactError
from export.format.manifest import RuntimeName

LARGEST_MEMBER: Final = 256 * 2**20
"""Largest size in bytes of the unpacked manifest or golden pictures."""
MANIFEST_KEY, GOLDEN_KEY = b"stn_manifest", b"stn_golden"
MANIFEST_MEMBER, GOLDEN_MEMBER = "extra/manifest.json", "extra/golden.base64"
ARCHIVES: Final = {
    "torchscript": ("TorchScript", ("constants.pkl", "code/", "version")),
    "program": ("a torch.export program", ("models/", "archive_format")),
}
"""Title and required members of each kind of archive; a renamed pickle lacks them."""

# Field numbers of onnx.proto. They never change.
MODEL_METADATA, ENTRY_KEY, ENTRY_VALUE = 14, 1, 2
CHILDREN: Final = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "tensor": {},
}
"""The messages that can contain tensors: each message's fields, and the message in each."""
TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION = 13, 14
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Inside(NamedTuple):
    """The manifest and golden pictures in a model file; None for those that are missing."""

    manifest: bytes | None
    golden: bytes | None


def embed(runtime: RuntimeName, content: bytes, inside: Inside) -> bytes:
    """Return the model file ``content`` with ``inside`` embedded, replacing what was embedded before.

    Raises:
        ValueError, zipfile.BadZipFile: it is damaged.
    """
    manifest, golden = inside.manifest or b"", base64.b64encode(inside.golden or b"")
    if runtime == "onnx":  # protobuf allows entries of a repeated field to be appended
        entries = {MANIFEST_KEY: manifest, GOLDEN_KEY: golden}
        return bare_onnx(content) + b"".join(
            field(MODEL_METADATA, field(ENTRY_KEY, key) + field(ENTRY_VALUE, value)) for key, value in entries.items()
        )
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(changed, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for entry in old.infolist():
            if entry.filename not in (f"{root}/{MANIFEST_MEMBER}", f"{root}/{GOLDEN_MEMBER}"):
                new.writestr(entry, old.read(entry))
        for member, value in ((MANIFEST_MEMBER, manifest), (GOLDEN_MEMBER, golden)):
            new.writestr(zipfile.ZipInfo(f"{root}/{member}"), value)
    return changed.getvalue()


def bare_onnx(content: bytes) -> bytes:
    """Return an ONNX model without what `embed` adds; everything else is unchanged, byte for byte."""
    parts = []
    for number, kind, value in fields(memoryview(content)):
        if isinstance(value, int):
            parts.append(as_varint(number << 3 | kind) + as_varint(value))
        elif kind != BYTES:
            parts.append(as_varint(number << 3 | kind) + bytes(value))
        elif number != MODEL_METADATA or metadata(value)[0] not in (MANIFEST_KEY, GOLDEN_KEY):
            parts.append(field(number, bytes(value)))
    return b"".join(parts)


def metadata(entry: memoryview) -> tuple[bytes, bytes]:
    """Return key and value of an ONNX metadata entry."""
    found = {number: bytes(value) for number, _, value in fields(entry) if isinstance(value, memoryview)}
    return found.get(ENTRY_KEY, b""), found.get(ENTRY_VALUE, b"")


def look_inside(runtime: RuntimeName, content: bytes, source: str) -> Inside:
    """Extract the manifest and golden pictures from a model file; errors refer to it as ``source``.

    Raises:
        ArtifactError: it is not a file of that runtime, is truncated, or an ONNX tensor refers to another file.
    """
    try:
        return look_in_onnx(memoryview(content)) if runtime == "onnx" else look_in_archive(runtime, content)
    except (ValueError, IndexError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{source} is damaged or not a model ({error}); copy or export it again") from error
    except ExternalDataError as error:
        raise ArtifactError(f"{source} refers to other files; a model must contain all of its weights") from error


class ExternalDataError(Exception):
    """A tensor of an ONNX model is stored in another file."""


def look_in_onnx(content: memoryview) -> Inside:
    """Extract from an ONNX file; see `look_inside`."""
    found: dict[bytes, bytes] = {}
    waiting = [("model", content)]
    graphs = 0
    while waiting:
        message, body = waiting.pop()
        for number, _, value in fields(body):
            if message == "tensor" and (number == TENSOR_EXTERNAL_DATA or (number == TENSOR_DATA_LOCATION and value)):
                raise ExternalDataError
            if not isinstance(value, memoryview):
                continue
            if message == "model" and number == MODEL_METADATA:
                key, said = metadata(value)
                found[key] = said
            elif child := CHILDREN[message].get(number):
                graphs += message == "model" and child == "graph"
                waiting.append((child, value))
    if not graphs:
        raise ValueError("it contains no graph")
    return Inside(found.get(MANIFEST_KEY), decoded(found.get(GOLDEN_KEY)))


def decoded(golden: bytes | None) -> bytes | None:
    """Decode the golden pictures from base64.

    Raises:
        ValueError: this is not valid base64.
    """
    return None if golden is None else base64.b64decode(golden, validate=True)


def fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield number, wire type and value of each field of a protobuf message.

    Raises:
        ValueError: it ends too early or is not protobuf.
    """
    position = 0
    while position < len(message):
        tag, position = varint(message, position)
        kind = tag & 7
        value: int | memoryview
        if kind == VARINT:
            value, position = varint(message, position)
        else:
            if kind == BYTES:
                length, position = varint(message, position)
            elif kind in (FIXED64, FIXED32):
                length = 8 if kind == FIXED64 else 4
            else:
                raise ValueError("it is not protobuf")
            value = message[position : position + length]
            position += length
            if len(value) < length:
                raise ValueError("it ends too early")
        yield tag >> 3, kind, value


def varint(message: memoryview, position: int) -> tuple[int, int]:
    """Decode the variable-length integer at ``position``; return it and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it ends too early")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("it is not protobuf")


def field(number: int, content: bytes) -> bytes:
    """Encode a protobuf field of bytes."""
    return as_varint(number << 3 | BYTES) + as_varint(len(content)) + content


def as_varint(value: int) -> bytes:
    """Encode ``value`` as a variable-length integer."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def look_in_archive(runtime: RuntimeName, content: bytes) -> Inside:
    """Extract from a zip archive; see `look_inside`."""
    title, parts = ARCHIVES[runtime]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        root = names[0].partition("/")[0] if names else ""
        for part in parts:
            if not any(name.startswith(f"{root}/{part}") for name in names):
                raise ValueError(f"{title} would contain {part}")
        members = []
        for name in (f"{root}/{MANIFEST_MEMBER}", f"{root}/{GOLDEN_MEMBER}"):
            if name in names and archive.getinfo(name).file_size > LARGEST_MEMBER:
                raise ValueError(f"{name} is too large")
            members.append(archive.read(name) if name in names else None)
    manifest, golden = members
    return Inside(manifest, decoded(golden))
