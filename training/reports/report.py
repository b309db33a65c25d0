"""A report on a run, to read: ``report.md`` in the run folder, with its pictures."""

from collections.abc import Mapping
from pathlib import Path

from training.files import write_text
from training.fitting.runs import Run
from training.reports.animate import animate_run
from training.reports.visualise import draw_run
from training.reports.wording import accuracy_text, before_and_after, boxes_text

REPORT = "report.md"
CAPTIONS = {
    "rectified.png": "Test pictures with what the network looks at (upper edge in blue), what it made of them, answers",
    "moving.gif": "One test picture, moved as in training, and its (last) rectified image",
    "epochs.gif": "The same validation pictures after each epoch, with the last transformer",
    "theta.png": "Theta (of the last transformer) on test pictures, by class",
    "curves.png": "Loss and error over the epochs, and what the collapse guard watches",
    "confusion.png": "Confusion matrix of the test set",
    "confused.png": "The commonest mistakes on the test set, with what the network looked at",
}


def write_report(run: Run, data_root: Path) -> Path:
    """Draw all pictures of an evaluated run and write its report; returns the file.

    Raises:
        RunError: the run is not trained or not evaluated.
        DataError: the data set cannot be read.
    """
    made = {file.name for file in (*draw_run(run, data_root), *animate_run(run, data_root))}
    info, evaluation = run.info(), run.evaluation()
    facts = {
        "test accuracy": accuracy_text(evaluation),
        "negative log-likelihood": before_and_after(evaluation, "loss"),
        "calibration error": before_and_after(evaluation, "error"),
        "validation accuracy": f"{evaluation.validation_accuracy:.2%} in epoch {evaluation.best_epoch}",
        "parameters": f"{info.network_parameters:,}",
        "seed": str(info.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in info.versions.items()),
    }
    if evaluation.theta_spread is not None:
        facts["spread of theta"] = f"{evaluation.theta_spread:.3f}"
    if (upright := evaluation.uprightness) is not None:
        facts |= {
            "residual rotation": f"{upright.rotation_deg:.1f}° (input {upright.input_rotation_deg:.1f}°)",
            "stillness": f"{upright.stillness:.3f} (input {upright.input_stillness:.3f}; 0 stands still)",
            "digits found": f"{upright.box_found:.1%} of {upright.digits * upright.versions:,} boxes overlap by half",
        }
    if evaluation.boxes is not None:
        facts["overlap with the object's box"] = boxes_text(evaluation.boxes)
    lines = [f"# {info.recipe.name}", "", f"{info.recipe.summary}.", "", "| | |", "|---|---|"]
    lines += table_rows(facts)
    for name, caption in CAPTIONS.items():
        if name in made:
            lines += ["", f"![{caption}]({run.pictures.name}/{name})", "", f"*{caption}.*"]
    lines += ["", "## Recipe", "", "| field | value |", "|---|---|"]
    lines += table_rows(info.recipe.model_dump(mode="json"))
    file = run.folder / REPORT
    write_text(file, "\n".join(lines) + "\n")
    return file


def table_rows(facts: Mapping[str, object]) -> list[str]:
    """A row of a Markdown table for each fact; ``|`` in one does not end its cell."""
    escaped = {name: str(value).replace("|", "\\|") for name, value in facts.items()}
    return [f"| {name} | {value} |" for name, value in escaped.items()]
