"""The depth of a classifier: its stages in the order of the data flow, some of which may be frozen."""

from typing import NamedTuple

from torch import nn

from training.errors import RecipeError
from training.networks.backbones import Parallel
from training.networks.classifiers import Classifier

LEAST_STAGES = 4
"""A backbone is taken apart until it has as many stages."""


class Part(NamedTuple):
    """A stage: modules, and parameters that stand beside them."""

    modules: tuple[nn.Module, ...]
    parameters: tuple[nn.Parameter, ...] = ()

    def all(self) -> list[nn.Parameter]:
        """All parameters of the stage."""
        return [*self.parameters, *(p for module in self.modules for p in module.parameters())]


def parts(classifier: Classifier) -> list[Part]:
    """Return the stages of ``classifier`` before its head, the first one first.

    Those of our own classifiers are `Classifier.stages`. A backbone is taken apart into its children, and these into
    theirs, until there are `LEAST_STAGES`. What has no weight matrix, such as a normalisation, belongs to the stage
    before it. Backbones side by side have their stages in common.
    """
    if len(classifier.stages) > 1:
        return [Part((stage,)) for stage in classifier.stages]
    (whole,) = classifier.stages
    backbones = whole.backbones if isinstance(whole, Parallel) else [whole]
    return [
        Part(tuple(m for part in row for m in part.modules), tuple(p for part in row for p in part.parameters))
        for row in zip(*map(stages_of, backbones), strict=True)
    ]


def stages_of(backbone: nn.Module) -> list[Part]:
    """Take ``backbone`` apart into at least `LEAST_STAGES` stages, if it has as many."""
    found = [Part((backbone,))]
    while len(found) < LEAST_STAGES:
        finer = joined([piece for part in found for piece in taken_apart(part)])
        if [part.modules for part in finer] == [part.modules for part in found]:
            break
        found = finer
    return found


def taken_apart(part: Part) -> list[Part]:
    """Return the children of a stage's modules, after the parameters that stand beside them."""
    pieces = [Part((), part.parameters)]
    for module in part.modules:
        children = [each for each in module.children() if any(True for _ in each.parameters())]
        if children:
            pieces += [Part((), tuple(module.parameters(recurse=False))), *(Part((child,)) for child in children)]
        else:
            pieces.append(Part((module,)))
    return pieces


def joined(pieces: list[Part]) -> list[Part]:
    """Join pieces without a weight matrix to the stage before them, and loose parameters to the stage after them."""
    found: list[Part] = []
    loose: tuple[nn.Parameter, ...] = ()
    for modules, beside in pieces:
        if not modules:
            loose += beside
        elif found and not loose and all(p.dim() == 1 for p in Part(modules, beside).all()):
            found[-1] = Part((*found[-1].modules, *modules), (*found[-1].parameters, *beside))
        else:
            found.append(Part(modules, (*loose, *beside)))
            loose = ()
    return found


def freeze(classifier: Classifier, count: int) -> None:
    """Exclude the first ``count`` stages of ``classifier`` from training; their batch statistics stay too.

    Raises:
        RecipeError: it has fewer stages.
    """
    stages = parts(classifier)
    if count > len(stages):
        raise RecipeError(f"the classifier has only {len(stages)} stages to freeze; lower frozen_stages from {count}")
    for stage in stages[:count]:
        for parameter in stage.all():
            parameter.requires_grad = False
        classifier.frozen += stage.modules
    classifier.train(classifier.training)
