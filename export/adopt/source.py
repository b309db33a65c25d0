"""Import a network of a user and load its weights.

Importing a module runs its code. Weights are loaded with ``weights_only=True``, so that a file of weights runs none.
"""

import importlib
import importlib.util
import pickle
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from export.adopt.errors import quote, refusing
from export.format.errors import ArtifactError

USUAL_KEYS = ("state_dict", "model_state_dict", "model", "net", "network")
"""Names under which checkpoints keep the weights, besides the optimiser and the epoch."""
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that `nn.DataParallel` and `torch.compile` put before each name."""
NAMED = 3
"""Number of weights that an error names."""
STATE_DICT = "save its weights alone: torch.save(network.state_dict(), 'net.pt')"


def load_network(factory: str, weights: Path) -> nn.Module:
    """Return the network that ``factory`` makes, with ``weights``, in evaluation mode and float32.

    Args:
        factory: ``module:attribute`` or ``path/to/file.py:attribute``: a class, a function without parameters, or a
            network.
        weights: a file with a state dict.

    Raises:
        ArtifactError: the import failed, there is no such network, or the weights are not its own.
    """
    dtype = torch.get_default_dtype()
    try:
        network = unwrapped(make_network(factory))
    finally:
        torch.set_default_dtype(dtype)  # which some modules change when they are imported
    load_weights(network, read_weights(weights), weights)
    return network.float().eval()


def make_network(factory: str) -> nn.Module:
    """Import ``factory`` and call it; see `load_network`."""
    name, separator, attribute = factory.rpartition(":")
    if not separator or not name or not attribute:
        raise ArtifactError(f"{factory!r} does not name a network; write module:name, as in my_module:make_network")
    module = import_module(name)
    try:
        made = getattr(module, attribute)
    except AttributeError as error:
        raise ArtifactError(f"{name} has no {attribute!r}; it has {names(module)}") from error
    if isinstance(made, nn.Module):
        return made
    if not callable(made):
        raise ArtifactError(f"{factory} is {type(made).__name__}; name a class, a function or a network")
    with refusing(
        f"{factory}()", "name a function that needs no arguments, such as: def make_network(): return Net(43)"
    ):
        network = made()
    if not isinstance(network, nn.Module):
        raise ArtifactError(f"{factory}() returns {type(network).__name__}; it must return the network, an nn.Module")
    return network


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the network inside `nn.DataParallel` and `torch.compile`, whose weights have no prefix."""
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(network.module)
    inside = getattr(network, "_orig_mod", None)
    return unwrapped(inside) if isinstance(inside, nn.Module) else network


def import_module(name: str) -> ModuleType:
    """Import a module by name or by the path of its file."""
    if name.endswith(".ipynb"):
        raise ArtifactError(f"{name} is a notebook; save its network as a module: jupyter nbconvert --to script {name}")
    with refusing(f"importing {name}", "mend it, or move the network into a module of its own"):
        if name.endswith(".py"):
            return import_file(Path(name))
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name.partition(".")[0] and error.name != name:
                raise
            raise ArtifactError(
                f"there is no module {name!r}; run this command in its folder, or write path/to/{name}.py:..."
            ) from error


def import_file(file: Path) -> ModuleType:
    """Import a file; its folder is on the path meanwhile, so that it finds the modules beside it."""
    spec = importlib.util.spec_from_file_location(f"adopted_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ArtifactError(f"there is no file {file}; write path/to/module.py:attribute")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def names(module: ModuleType) -> str:
    """Return the names in ``module`` that may make a network."""
    found = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", "") == module.__name__
    ]
    return ", ".join(found) or "no classes and no functions"


def read_weights(file: Path) -> Mapping[str, Tensor]:
    """Read a state dict, alone or in a checkpoint, without running any code in the file.

    Raises:
        ArtifactError: it is something else.
    """
    try:
        if is_torchscript(file):
            raise ArtifactError(f"{file} is TorchScript, which contains code; where it was made, {STATE_DICT}")
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtifactError(f"{file} is not a state dict but a pickle, which would run code; {STATE_DICT}") from error
    except OSError as error:
        raise ArtifactError(f"cannot read {file}: {error.strerror}; name the file of the weights") from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{file} is damaged or not a file of torch.save ({quote(error)}); {STATE_DICT}") from error
    return without_wrappers(find_weights(content, file))


def is_torchscript(file: Path) -> bool:
    """Whether ``file`` is an archive of `torch.jit.save`."""
    if not file.is_file() or not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def find_weights(content: Any, file: Path) -> Mapping[str, Tensor]:
    """Return the state dict in ``content``: itself, or the only one in a checkpoint."""
    if are_weights(content):
        found: Mapping[str, Tensor] = content
        return found
    inside = {key: value for key, value in content.items() if are_weights(value)} if is_mapping(content) else {}
    usual = [key for key in USUAL_KEYS if key in inside]
    if len(inside) > 1 and len(usual) == 1:
        inside = {usual[0]: inside[usual[0]]}
    if len(inside) != 1:
        several = f"several state dicts ({', '.join(map(str, inside))})" if inside else "no state dict"
        raise ArtifactError(f"{file} contains {several}; {STATE_DICT}")
    return next(iter(inside.values()))


def is_mapping(content: Any) -> bool:
    """Whether ``content`` is a mapping with text keys."""
    return isinstance(content, Mapping) and all(isinstance(key, str) for key in content)


def are_weights(content: Any) -> bool:
    """Whether ``content`` maps names to tensors."""
    return is_mapping(content) and bool(content) and all(isinstance(value, Tensor) for value in content.values())


def without_wrappers(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Remove the prefixes that wrappers have put before all names."""
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in weights):
            return without_wrappers({name.removeprefix(prefix): value for name, value in weights.items()})
    return weights


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Load ``weights`` into ``network``.

    Raises:
        ArtifactError: some are missing, unknown, of another shape or not finite.
    """
    own = {name: value for name, value in network.state_dict().items() if not is_lazy(value)}
    cure = "name the factory that they were trained with, or its arguments have changed"
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and isinstance(value, Tensor) and weights[name].shape != value.shape
    ]
    if shapes:
        raise ArtifactError(f"the weights in {file} have other shapes: {listed(shapes)}; {cure}")
    if broken := [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]:
        raise ArtifactError(f"the weights in {file} are not finite: {listed(broken)}; the training diverged")
    with refusing(f"loading {file}", cure):
        missing, unknown = network.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unknown:
        said = [f"{what} {listed(found)}" for what, found in (("lack", missing), ("also have", unknown)) if found]
        raise ArtifactError(f"the weights in {file} are of another network: they {' and '.join(said)}; {cure}")


def listed(names: list[str]) -> str:
    """Name the first few."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
