import pytest
import torch

from training.evaluation.calibration import calibration, fit_temperature


def answers(temperature: float, count: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels drawn from the probabilities that they have at ``temperature``."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, 5, generator=generator)
    labels = torch.multinomial((logits / temperature).softmax(dim=1), 1, generator=generator)[:, 0]
    return logits, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found_again(temperature: float) -> None:
    assert fit_temperature(*answers(temperature)) == pytest.approx(temperature, rel=0.05)


def test_the_right_temperature_lowers_loss_and_calibration_error() -> None:
    logits, labels = answers(2.5)
    before, after = calibration(logits, labels), calibration(logits / fit_temperature(logits, labels), labels)
    assert after.loss < before.loss
    assert after.error < 0.02 < before.error


def test_known_logits_have_the_known_loss_and_error() -> None:
    logits = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]).log()
    measured = calibration(logits, torch.tensor([0, 0, 0, 1]))
    assert measured.error == pytest.approx(0.9 - 0.75, abs=1e-5)
    assert measured.loss == pytest.approx(-(3 * torch.tensor(0.9).log() + torch.tensor(0.1).log()).item() / 4, abs=1e-5)


def test_a_network_that_made_no_mistake_on_few_pictures_does_not_become_infallible() -> None:
    labels = torch.arange(5).repeat(10)
    logits = 8 * torch.nn.functional.one_hot(labels, 5).float()

    sureness = (logits / fit_temperature(logits, labels)).softmax(dim=1).amax(dim=1).mean()

    assert float(sureness) == pytest.approx(50 / 51, abs=0.01)


def test_the_temperature_stays_within_bounds_where_none_is_best() -> None:
    logits = torch.tensor([[0.9, 0.0], [0.0, 0.9]])
    assert 5 < fit_temperature(logits, torch.tensor([1, 0])) <= 20
    certain = 1000 * torch.eye(2)[torch.arange(2).repeat(50_000)]
    assert fit_temperature(certain / 1e5, torch.arange(2).repeat(50_000)) >= 0.05
