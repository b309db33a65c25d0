"""Loads the models at the start, as the settings select them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from export.format.artifact import ArtifactError, find_artifacts
from export.format.remote import public_url
from service.errors import ModelLoadError
from service.inference.engine import Engine
from service.inference.loading import Opener, default_opener, digest, load_model
from service.inference.registry import Models
from service.metrics.recorder import Recorder
from service.repository.trust import read_trusted
from service.repository.version_policy import Selection
from service.settings import Settings


def load_engine(settings: Settings) -> Engine:
    """Return an engine with the models that ``settings`` name.

    Raises:
        StartError: a model cannot be loaded.
    """
    return Engine(load_models(settings), settings)


def load_models(
    settings: Settings,
    opener: Opener | None = None,
    present: Mapping[str, Mapping[int, str]] | None = None,
    recorder: Recorder | None = None,
) -> Models:
    """Load and warm up the models that are served from the start.

    Args:
        settings: the models folder and the versions to load.
        opener: opens the backend of a model; `open_backend` by default.
        present: the digests, by name and version, of the models that other workers serve. They replace the selection.
        recorder: counts the inferences.

    Raises:
        ModelLoadError: there is no model, or a model is missing, cannot be loaded or gives wrong outputs.
        DeviceError: the requested device cannot be used.
    """
    selection = Selection(settings)
    try:
        folders, place = find_folders(settings.models_folder), public_url(settings.models)
        if not folders and present is None:
            raise ModelLoadError(f"there is no model in {place}; it must hold NAME/VERSION/manifest.json")
        chosen = selection.choose(folders) if present is None else [(n, v) for n in present for v in present[n]]
        for name, version in chosen:
            if (name, version) not in folders:
                found_names = ", ".join(f"{name}/{version}" for name, version in folders)
                raise ModelLoadError(f"there is no {name}/{version} in {place}; there are: {found_names}")
        found = [
            (name, version, read_trusted(folders[name, version], name, version, settings)) for name, version in chosen
        ]
    except ArtifactError as error:
        raise ModelLoadError(str(error)) from error
    opener = opener or default_opener(settings)
    recorder = recorder or Recorder()
    models = []
    for name, version, artifact in found:
        if present is not None and digest(artifact) != present[name][version]:
            raise ModelLoadError(f"{artifact.folder} differs from the version of the other workers; load {name} again")
        models.append(load_model(name, version, artifact, settings, opener, recorder))
    return Models(models, selection.defaults, recorder)


def find_folders(
    models: Path, on_error: Callable[[str, ArtifactError], None] | None = None
) -> dict[tuple[str, int], Path]:
    """Return the folder of each name and version; `find_artifacts` describes ``on_error``.

    Raises:
        ArtifactError: the folder cannot be read.
    """
    return {(name, version): folder for name, version, folder in find_artifacts(models, on_error)}
