"""The figures of an evaluated run in words, for the terminal and for reports."""

from typing import Literal

from training.evaluation.corners import CornerFit, CornerScores
from training.evaluation.overlaps import BoxScores
from training.evaluation.poses import Pose
from training.evaluation.results import Evaluation
from training.fitting.runs import Run

SMALLEST_P = 1e-4
"""Smallest p-value that is written out."""


def evaluation_facts(run: Run, evaluation: Evaluation) -> dict[str, str]:
    """Return each measure's name and value as text, in the order in which they are shown."""
    low, high = evaluation.accuracy_interval
    sequences = evaluation.sequences
    objects = "" if sequences is None else f"the {sequences.objects * evaluation.pictures:,} objects of "

    def before_and_after(measure: Literal["loss", "error"]) -> str:
        before, after = (getattr(c, measure) for c in (evaluation.calibration, evaluation.calibration_at_temperature))
        return f"{before:.4f}; {after:.4f} at temperature {evaluation.temperature:.3f}"

    facts = {
        "test accuracy": f"{evaluation.accuracy:.2%} of {objects}{evaluation.pictures:,} pictures "
        f"(95% interval {low:.2%} to {high:.2%}{basis(evaluation)})",
        "negative log-likelihood": before_and_after("loss"),
        "calibration error": before_and_after("error"),
        "validation accuracy": f"{evaluation.validation_accuracy:.2%} in epoch {evaluation.best_epoch}"
        + interval_text(evaluation.validation_interval),
    }
    if sequences is not None:
        facts["whole sequences right"] = f"{sequences.accuracy:.2%}{interval_text(sequences.interval)}"
    if len(run.info().classes) == 1:  # every answer is right
        facts = {"test pictures": f"{evaluation.pictures:,}, of a single class"}
    facts["parameters"] = f"{run.info().network_parameters:,}"
    if evaluation.theta_spread is not None:
        facts["spread of theta"] = f"{evaluation.theta_spread:.3f}"
    if (worth := evaluation.worth) is not None:
        facts["accuracy without theta"] = (
            f"{worth.mean_theta:.2%} with its mean, {worth.identity:.2%} with the identity ({p_text(worth.p_value)})"
        )
    if (pose := evaluation.pose) is not None:
        facts |= pose_facts(pose)
    if (trust := evaluation.reliability) is not None:
        facts["corners that follow known changes"] = (
            f"{1 - trust.corners_wrong[-1]:.1%} are right within {trust.within:.0%} of the side; "
            f"of the more reliable half {1 - trust.corners_wrong[(len(trust.shares) - 1) // 2]:.1%}"
        )
    if (upright := evaluation.uprightness) is not None:
        boxes = upright.digits * upright.versions
        facts |= {
            "residual rotation": f"{upright.rotation_deg:.1f} degrees (input {upright.input_rotation_deg:.1f})",
            "stillness": f"{upright.stillness:.3f} (input {upright.input_stillness:.3f}; 0 is perfectly still)",
            "digits found": f"{upright.box_found:.1%} of {boxes:,} boxes overlap by more than half",
        }
        if upright.quadrilateral is not None:
            facts["overlap with the digit's own frame"] = f"{upright.quadrilateral:.3f}"
    if (scores := evaluation.boxes) is not None:
        facts["overlap with the object's box"] = (
            f"theta's box {scores.theta:.3f}{own_overlaps(scores)}, whole picture {scores.whole:.3f}, "
            f"best centre crop ({scores.centre_side:.0%}) {scores.centre:.3f}"
        )
    if (corners := evaluation.corners) is not None:
        facts |= corner_facts(corners)
    return facts


def corner_facts(scores: CornerScores) -> dict[str, str]:
    """Return the measures of corners by name, as text."""

    def text(fit: CornerFit) -> str:
        return f"{fit.error_px:.1f} pixels (90% within {fit.error_px_90:.1f}), overlap {fit.overlap:.3f}"

    facts = {}
    if scores.after is not None and scores.before is not None:
        counts = f"{scores.pictures:,} test pictures, {scores.labelled:,} labelled to train"
        facts = {
            "corners": f"{text(scores.after)}; {counts}",
            "corners before": f"whole picture: {text(scores.before)}",
        }
        if scores.guess is not None:
            facts["corners without looking"] = f"mean of the training pictures: {text(scores.guess)}"
    if scores.box_overlap is not None:
        facts["overlap with boxes"] = f"{scores.box_overlap:.3f} on {scores.boxed:,} test pictures"
    return facts


def basis(evaluation: Evaluation) -> str:
    """Say over what the interval of the accuracy is taken, if not over independent pictures."""
    if evaluation.sequences is not None:
        return " over pictures"
    if evaluation.groups is not None:
        return f" over {evaluation.groups:,} groups of pictures"
    return "; too narrow, since pictures of one thing are taken as independent" if evaluation.unknown_groups else ""


def interval_text(interval: tuple[float, float] | None) -> str:
    """Return an interval in brackets, or nothing."""
    return "" if interval is None else f" (95% interval {interval[0]:.2%} to {interval[1]:.2%})"


def describe_worth(evaluation: Evaluation) -> str | None:
    """Say in one sentence what the transformer is worth; return None if that was not measured."""
    if (worth := evaluation.worth) is None:
        return None
    what = "decoration" if worth.decoration else "needed"
    change = "lost" if worth.lost >= 0 else "gained"
    return f"Here the transformer is {what}: without it {abs(100 * worth.lost):.2f} points are {change}."


def p_text(p_value: float) -> str:
    """Return a p-value as text; a very small one as a bound."""
    return f"p = {p_value:.3g}" if p_value >= SMALLEST_P else f"p < {SMALLEST_P:g}"


def pose_facts(pose: Pose) -> dict[str, str]:
    """Return the measures of poses by name, as text."""
    facts = {
        "left of known turns": f"{pose.turn_deg.left:.1f} of {pose.turn_deg.given:.1f} degrees",
        "left of known shifts": f"{pose.shift.left:.3f} of {pose.shift.given:.3f} of the side",
        "left of known sizes": f"a factor of {pose.size.left:.3f} of {pose.size.given:.3f}",
    }
    leans = pose.class_lean_deg
    most = max(leans, key=lambda name: abs(leans[name]))
    mean = sum(map(abs, leans.values())) / len(leans)
    facts["mean lean of a class"] = f"{mean:.1f} degrees (most: {leans[most]:+.1f}, {most})"
    if pose.between_deg is not None:
        facts["lean between things of a class"] = f"{pose.between_deg:.1f} degrees"
    return facts


def own_overlaps(scores: BoxScores) -> str:
    """Return the overlaps of theta's quadrilateral and of its ellipse's box as text, if they were measured."""
    if scores.quadrilateral is None or scores.ellipse is None:
        return ""
    return f", its quadrilateral {scores.quadrilateral:.3f}, the box of its ellipse {scores.ellipse:.3f}"
