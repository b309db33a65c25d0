import pytest
import torch

from training.evaluation.metrics import Spread


def test_spread_is_the_mean_standard_deviation_over_all_batches() -> None:
    vectors = torch.randn(100, 6, generator=torch.Generator().manual_seed(0)) + 5
    spread = Spread(6)
    for batch in torch.split(vectors, 30):
        spread.update(batch)
    assert float(spread.compute()) == pytest.approx(float(vectors.double().std(dim=0, correction=0).mean()))


def test_a_constant_has_no_spread() -> None:
    spread = Spread(6)
    spread.update(torch.full((50, 6), 0.123456))
    assert float(spread.compute()) == pytest.approx(0, abs=1e-6)
