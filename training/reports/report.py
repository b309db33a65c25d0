"""The report of a run: ``report.md`` in the run folder, with its figures."""

from collections.abc import Mapping
from pathlib import Path

from training.files import write_text
from training.fitting.runs import Run
from training.reports.animate import animate_run
from training.reports.facts import describe_worth, evaluation_facts
from training.reports.visualise import draw_run

REPORT = "report.md"
CAPTIONS = {
    "rectified.png": "Test pictures with the sampled regions (upper edge in blue), their rectified images, and answers",
    "means.png": "Mean picture of each class before and after rectification, under known changes",
    "moving.gif": "One test picture, moved as in training, and its (last) rectified image",
    "epochs.gif": "The same validation pictures after each epoch, with the last transformer",
    "theta.png": "Theta (of the last transformer) on test pictures, by class",
    "reliability.png": "Wrong corners and classes among the most reliable answers to validation pictures",
    "curves.png": "Loss and error over the epochs, and the collapse guard's measures",
    "confusion.png": "Confusion matrix of the test set",
    "confused.png": "The most frequent mistakes on the test set, with the sampled regions",
}


def write_report(run: Run, data_root: Path) -> Path:
    """Draw all figures of an evaluated run and write its report; return the file.

    Raises:
        RunError: the run is not trained or not evaluated.
        DataError: the data set cannot be read.
    """
    made = {file.name for file in (*draw_run(run, data_root), *animate_run(run, data_root))}
    info = run.info()
    evaluation = run.evaluation()
    facts = evaluation_facts(run, evaluation) | {
        "seed": str(info.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in info.versions.items()),
    }
    lines = [f"# {info.recipe.name}", "", f"{info.recipe.summary}.", "", "| | |", "|---|---|"]
    lines += table_rows(facts)
    if sentence := describe_worth(evaluation):
        lines += ["", sentence]
    for name, caption in CAPTIONS.items():
        if name in made:
            lines += ["", f"![{caption}]({run.pictures.name}/{name})", "", f"*{caption}.*"]
    lines += ["", "## Recipe", "", "| field | value |", "|---|---|"]
    lines += table_rows(info.recipe.model_dump(mode="json"))
    file = run.folder / REPORT
    write_text(file, "\n".join(lines) + "\n")
    return file


def table_rows(facts: Mapping[str, object]) -> list[str]:
    """Return a row of a Markdown table for each fact, with ``|`` escaped."""
    escaped = {name: str(value).replace("|", "\\|") for name, value in facts.items()}
    return [f"| {name} | {value} |" for name, value in escaped.items()]
