from tests.small_runs import data_root, small_recipe, trained_run

__all__ = ["data_root", "small_recipe", "trained_run"]
