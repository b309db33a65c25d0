from pathlib import Path

import pytest

from tests.small_runs import begin
from training.errors import RecipeError, RunError
from training.evaluation.results import Evaluation
from training.fitting.runs import Run
from training.recipes.catalogue import RECIPES
from training.recipes.digits import DISTORTED_MNIST, KINDS
from training.recipes.recipe import Recipe, change_recipe
from training.reports.comparison import CONFUSIONS, CURVES, NOT_RUN, confusions, differences_table, holm, write_table
from training.reports.confusions import confusion_matrix
from training.reports.evaluation import evaluate
from training.reports.study import STUDIES, cells, finished_runs, is_study, root_of, work


@pytest.fixture
def tiny(small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """A study of two recipes that take a second, under the names of two real ones."""
    changes = {"epochs": 1, "validation_size": 160, "classifier_width": 4}
    recipes = [
        change_recipe(small_recipe, {**changes, "name": "mnist-rts-affine"}),
        change_recipe(small_recipe, {**changes, "name": "mnist-rts-cnn", "transformer": "none"}),
    ]
    monkeypatch.setitem(STUDIES, "distorted-mnist", recipes)
    return recipes


def test_the_study_has_every_problem_by_every_kind() -> None:
    named = {cell.recipe.name for cell in cells("distorted-mnist", Path("x"), seeds=1)}
    problems = ("r", "rts", "p", "e", "tc", "addition")
    assert named == {f"mnist-{problem}-{kind}" for problem in problems for kind in KINDS}


def test_what_matters_most_comes_first_and_each_seed_has_its_own_folder() -> None:
    found = cells("distorted-mnist", Path("x"), seeds=3)
    assert found[0].recipe.name == "mnist-r-affine"
    assert len(found) == 3 * len(DISTORTED_MNIST)
    assert len({cell.run.folder for cell in found}) == len(found)
    assert {cell.seed for cell in found} == {0, 1, 2}


def test_unknown_studies_and_recipes_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(RecipeError, match="the studies are: distorted-mnist"):
        cells("mnist", Path("x"), seeds=1)
    with pytest.raises(RecipeError, match="has no recipe mnist-x; its recipes are: mnist-r-affine"):
        cells("distorted-mnist", Path("x"), seeds=1, only=["mnist-x"])


def test_a_study_does_what_is_left_and_says_what_was_not_run(
    tiny: list[Recipe], data_root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "distorted-mnist"
    folder.mkdir()
    tables: list[str] = []

    def report() -> None:
        tables.append(write_table("distorted-mnist", folder).read_text())

    first = cells("distorted-mnist", folder, seeds=1, only=["mnist-rts-cnn"])
    assert len(list(work(first, data_root, report))) == 1
    done = Run(folder / "mnist-rts-cnn-seed0")
    assert f"| `mnist-rts-affine` | 0 | {NOT_RUN} |" in tables[-1]
    assert f"{100 * (1 - done.evaluation().accuracy):.2f}" in tables[-1]
    before = done.best_checkpoint.stat().st_mtime_ns
    worked = [cell.recipe.name for cell in work(cells("distorted-mnist", folder, seeds=1), data_root, report)]
    assert worked == ["mnist-rts-affine"], "what was done is not done again"
    assert done.best_checkpoint.stat().st_mtime_ns == before
    assert [run.folder.name for run in finished_runs(folder)] == ["mnist-rts-affine-seed0", "mnist-rts-cnn-seed0"]
    assert is_study(folder)
    assert not is_study(done.folder)


def test_a_run_that_was_begun_is_gone_on_with(tiny: list[Recipe], data_root: Path, tmp_path: Path) -> None:
    from training.fitting.trainer import fit

    run = begin(tmp_path / "mnist-rts-affine-seed0", tiny[0])
    fit(run, data_root, progress=False)
    trained = run.last_checkpoint.read_bytes()
    todo = cells("distorted-mnist", tmp_path, seeds=1, only=["mnist-rts-affine"])
    assert len(list(work(todo, data_root, lambda: None))) == 1
    assert run.last_checkpoint.read_bytes() == trained
    assert run.evaluation() == evaluate(run, data_root)


def test_a_study_goes_on_with_the_data_that_it_was_begun_with(tiny: list[Recipe], tmp_path: Path) -> None:
    assert root_of(tmp_path, None) == Path("data")
    begin(tmp_path / "mnist-rts-cnn-seed0", tiny[1], data_root=tmp_path / "digits")
    assert root_of(tmp_path, None) == tmp_path / "digits"
    assert root_of(tmp_path, Path("elsewhere")) == Path("elsewhere")


def test_seeds_are_averaged_with_their_spread(tiny: list[Recipe], data_root: Path, tmp_path: Path) -> None:
    list(work(cells("distorted-mnist", tmp_path, seeds=2, only=["mnist-rts-cnn"]), data_root, lambda: None))
    errors = [100 * (1 - Run(tmp_path / f"mnist-rts-cnn-seed{seed}").evaluation().accuracy) for seed in (0, 1)]
    text = write_table("distorted-mnist", tmp_path).read_text()
    assert f"| `mnist-rts-cnn` | 2 | {sum(errors) / 2:.2f} ± " in text
    evaluations = [Run(tmp_path / f"mnist-rts-cnn-seed{seed}").evaluation() for seed in (0, 1)]
    for name in evaluations[0].class_accuracy:
        assert f"| {name} | {50 * sum(e.class_accuracy[name] for e in evaluations):.2f} |" in text
    (found,) = confusions({"mnist-rts-cnn": evaluations}).values()
    sums = confusion_matrix(found, range(10))
    assert sums.sum() == sum(e.pictures for e in evaluations)
    assert sums[0, 0] == sum(confusion_matrix(e.confusions, range(10))[0, 0] for e in evaluations)
    assert (tmp_path / CONFUSIONS).stat().st_size > 1000


def test_a_cell_that_collapses_does_not_stop_the_others_and_is_not_tried_again(
    tiny: list[Recipe], data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hopeless = change_recipe(tiny[0], {"optimiser": "sgd", "learning_rate": 1e30, "clip": None, "warmup": 0.0})
    monkeypatch.setitem(STUDIES, "distorted-mnist", [hopeless, tiny[1]])
    todo = cells("distorted-mnist", tmp_path, seeds=1)
    assert [cell.recipe.name for cell in work(todo, data_root, lambda: None)] == ["mnist-rts-affine", "mnist-rts-cnn"]
    text = write_table("distorted-mnist", tmp_path).read_text()
    assert f"| `mnist-rts-affine` | 0, 1 failed | {NOT_RUN} |" in text
    assert "| `mnist-rts-cnn` | 1 | " in text
    assert list(work(todo, data_root, lambda: None)) == []


def test_runs_of_another_version_of_a_recipe_are_not_mixed_in(
    tiny: list[Recipe], data_root: Path, tmp_path: Path
) -> None:
    begin(tmp_path / "mnist-rts-cnn-seed0", change_recipe(tiny[1], {"epochs": 2}))
    todo = cells("distorted-mnist", tmp_path, seeds=1, only=["mnist-rts-cnn"])
    with pytest.raises(RunError, match="another version of the recipe"):
        list(work(todo, data_root, lambda: None))


def test_every_study_has_recipes_of_different_names_that_are_in_the_catalogue() -> None:
    for recipes in STUDIES.values():
        names = [recipe.name for recipe in recipes]
        assert len(set(names)) == len(names) > 1
        assert all(RECIPES[recipe.name] == recipe for recipe in recipes)


def with_accuracy(evaluation: Evaluation, accuracy: float) -> Evaluation:
    return evaluation.model_copy(update={"accuracy": accuracy})


def test_differences_of_all_pairs_are_told_with_their_interval_and_a_corrected_probability(
    tiny: list[Recipe], trained_run: Run
) -> None:
    basis = trained_run.evaluation()
    third = change_recipe(tiny[1], {"name": "mnist-rts-third"})
    accuracies = {
        tiny[0]: (0.90, 0.91, 0.92),
        tiny[1]: (0.95, 0.96, 0.97),
        third: (0.95, 0.96, 0.98),
    }
    found = {recipe.name: [with_accuracy(basis, one) for one in of] for recipe, of in accuracies.items()}
    table = differences_table(list(accuracies), found)
    assert table[3:] == [
        "| `mnist-rts-cnn` against `mnist-rts-affine` | +5.00 points (+2.73 to +7.27) | 0.011 |",
        "| `mnist-rts-third` against `mnist-rts-affine` | +5.33 points (+2.21 to +8.45) | 0.021 |",
        "| `mnist-rts-third` against `mnist-rts-cnn` | +0.33 points (-2.79 to +3.45) | 0.770 |",
    ]
    assert "of 3 pair(s)" in table[1]


def test_only_recipes_with_several_seeds_and_the_same_problem_are_compared(
    tiny: list[Recipe], trained_run: Run
) -> None:
    turned = change_recipe(tiny[1], {"distortion": "r"})
    several = [with_accuracy(trained_run.evaluation(), accuracy) for accuracy in (0.9, 0.91)]
    for recipes, seeds in ((tiny, 1), ([tiny[0], turned], 2)):
        found = {tiny[0].name: several, tiny[1].name: several[:seeds]}
        assert differences_table(recipes, found) == []


def test_probabilities_are_corrected_as_holm_did() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1, 1]
    assert holm([0.2]) == [0.2]


def test_a_study_draws_the_curves_of_what_was_run(tiny: list[Recipe], data_root: Path, tmp_path: Path) -> None:
    write_table("distorted-mnist", tmp_path)
    assert not (tmp_path / CURVES).exists()
    list(work(cells("distorted-mnist", tmp_path, seeds=1, only=["mnist-rts-cnn"]), data_root, lambda: None))
    write_table("distorted-mnist", tmp_path)
    assert (tmp_path / CURVES).stat().st_size > 1000
