"""The figures of an evaluated run in words, for the terminal and for reports."""

from typing import Literal

from training.fitting.runs import Evaluation, Run


def evaluation_facts(run: Run, evaluation: Evaluation) -> dict[str, str]:
    """Return each measure's name and value as text, in the order in which they are shown."""
    low, high = evaluation.accuracy_interval

    def before_and_after(measure: Literal["loss", "error"]) -> str:
        before, after = (getattr(c, measure) for c in (evaluation.calibration, evaluation.calibration_at_temperature))
        return f"{before:.4f}; {after:.4f} at temperature {evaluation.temperature:.3f}"

    facts = {
        "test accuracy": f"{evaluation.accuracy:.2%} of {evaluation.pictures:,} pictures "
        f"(95% interval {low:.2%} to {high:.2%})",
        "negative log-likelihood": before_and_after("loss"),
        "calibration error": before_and_after("error"),
        "validation accuracy": f"{evaluation.validation_accuracy:.2%} in epoch {evaluation.best_epoch}",
        "parameters": f"{run.info().network_parameters:,}",
    }
    if evaluation.theta_spread is not None:
        facts["spread of theta"] = f"{evaluation.theta_spread:.3f}"
    if (upright := evaluation.uprightness) is not None:
        boxes = upright.digits * upright.versions
        facts |= {
            "residual rotation": f"{upright.rotation_deg:.1f} degrees (input {upright.input_rotation_deg:.1f})",
            "stillness": f"{upright.stillness:.3f} (input {upright.input_stillness:.3f}; 0 is perfectly still)",
            "digits found": f"{upright.box_found:.1%} of {boxes:,} boxes overlap by more than half",
        }
    if (scores := evaluation.boxes) is not None:
        facts["overlap with the object's box"] = (
            f"theta {scores.theta:.3f}, whole picture {scores.whole:.3f}, "
            f"best centre crop ({scores.centre_side:.0%}) {scores.centre:.3f}"
        )
    return facts
