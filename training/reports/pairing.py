"""The comparison of two runs on the same test pictures."""

from training.errors import RunError
from training.evaluation.intervals import mcnemar
from training.fitting.runs import Run
from training.reports.facts import p_text


def comparison_facts(first: Run, second: Run) -> dict[str, str]:
    """Compare which test pictures two runs get right; return each measure's name and value as text.

    Raises:
        RunError: a run is not evaluated, or the runs were evaluated on different pictures.
    """
    for name in ("dataset", "distortion", "pictures"):
        of_first, of_second = (getattr(run.evaluation(), name) for run in (first, second))
        if of_first != of_second:
            raise RunError(
                f"{first.folder} and {second.folder} were evaluated on different pictures ({name}: {of_first} and "
                f"{of_second}); compare runs of one data set and one distortion"
            )
    (logits, labels), (other_logits, other_labels) = (run.answers() for run in (first, second))
    if first.info().classes != second.info().classes or not labels.equal(other_labels):
        raise RunError(
            f"{first.folder} and {second.folder} were evaluated on different pictures (their classes differ); "
            "compare runs with the same split.csv"
        )
    groups = first.groups()
    found = mcnemar(logits.argmax(dim=-1) == labels, other_logits.argmax(dim=-1) == labels, groups)
    low, high = (100 * side for side in found.interval)
    of_objects = labels.dim() == 2
    units = "objects" if of_objects else "pictures"
    facts = {
        f"accuracy of the {which} run": f"{run.evaluation().accuracy:.2%} of {labels.numel():,} {units}"
        for which, run in (("first", first), ("second", second))
    }
    basis = " over pictures" if of_objects else ""
    if groups is not None:
        basis = f" over {first.evaluation().groups:,} groups of pictures"
    return facts | {
        "difference": f"{100 * found.difference:+.2f} points (95% interval {low:+.2f} to {high:+.2f}{basis})",
        "right in the first run alone": f"{found.only_first:,} {units}",
        "right in the second run alone": f"{found.only_second:,} {units}",
        "exact sign test over pictures" if of_objects else "McNemar's exact test": p_text(found.p_value),
    }
