"""The drawing at the head of each tree of errors shows all of them, with their statuses."""

import inspect
import re
from importlib import import_module
from typing import Any

import pytest

NODE = re.compile(r"^((?:│   |    )*(?:[├└]── )?)(\w+Error)\b *(?:(\d{3}) )?", re.MULTILINE)
TREES = ["export.format.errors", "imaging.errors", "service.client.errors", "service.errors", "training.errors"]
Tree = dict[str, tuple[str | None, str | None]]


def drawn(text: str) -> Tree:
    """The parent and the status of each error in a drawing."""
    tree: Tree = {}
    path: list[str] = []
    for indent, name, status in NODE.findall(text):
        path[len(indent) // 4 :] = [name]
        tree[name] = (path[-2] if len(path) > 1 else None, status or None)
    return tree


def defined(module: Any) -> Tree:
    """The same of the classes in a module."""
    found = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__]
    return {
        kind.__name__: (
            kind.__base__.__name__ if kind.__base__ in found else None,
            str(vars(kind)["status"]) if "status" in vars(kind) else None,
        )
        for kind in found
        if issubclass(kind, Exception)
    }


@pytest.mark.parametrize("name", TREES)
def test_the_drawing_of_the_errors_is_the_tree_of_their_classes(name: str) -> None:
    module = import_module(name)
    assert drawn(module.__doc__ or "") == defined(module)
