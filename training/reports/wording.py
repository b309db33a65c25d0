"""Figures of an evaluation in words, for the terminal and for reports."""

from typing import Literal

from training.evaluation.rectification import BoxScores
from training.fitting.runs import Evaluation


def accuracy_text(evaluation: Evaluation) -> str:
    """With its interval."""
    low, high = evaluation.accuracy_interval
    return f"{evaluation.accuracy:.2%} of {evaluation.pictures:,} pictures (95% interval {low:.2%} to {high:.2%})"


def before_and_after(evaluation: Evaluation, measure: Literal["loss", "error"]) -> str:
    """A measure of calibration before and after temperature scaling."""
    before, after = (getattr(c, measure) for c in (evaluation.calibration, evaluation.calibration_at_temperature))
    return f"{before:.4f}; {after:.4f} at temperature {evaluation.temperature:.3f}"


def boxes_text(boxes: BoxScores) -> str:
    """Theta's overlap beside those of simpler guesses."""
    return (
        f"theta {boxes.theta:.3f}, whole picture {boxes.whole:.3f}, "
        f"best centre crop ({boxes.centre_side:.0%}) {boxes.centre:.3f}"
    )
