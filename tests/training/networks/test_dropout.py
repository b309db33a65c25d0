import pytest
import torch
from torch import Tensor

from training.networks.dropout import Dropout


def drop(values: Tensor, *, channels: bool = False, versions: int = 1) -> Tensor:
    """What one step makes of ``values``."""
    torch.manual_seed(0)
    dropout = Dropout(0.25, channels=channels)
    dropout.versions = versions
    dropped: Tensor = dropout(values)
    return dropped


def test_evaluation_drops_nothing() -> None:
    values = torch.rand(2, 3, 4, 5)
    assert Dropout().eval()(values) is values


@pytest.mark.parametrize("shape", [(400, 50), (40, 10, 5, 6)])
def test_the_stated_share_is_dropped_and_the_rest_grows_so_that_the_mean_stays(shape: tuple[int, ...]) -> None:
    dropped = drop(torch.ones(shape))
    assert torch.equal(dropped, torch.where(dropped > 0, 1 / 0.75, 0.0))
    assert (dropped == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    assert dropped.mean() == pytest.approx(1, abs=0.03)


def test_channels_are_dropped_whole() -> None:
    dropped = drop(torch.ones(40, 10, 5, 6), channels=True)
    assert torch.equal(dropped, dropped[:, :, :1, :1].expand(40, 10, 5, 6))
    assert (dropped[:, :, 0, 0] == 0).float().mean() == pytest.approx(0.25, abs=0.05)


def test_how_pictures_lie_in_memory_does_not_matter() -> None:
    values = torch.rand(4, 3, 5, 6)
    assert torch.equal(drop(values), drop(values.to(memory_format=torch.channels_last)))


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("versions", [1, 2])
def test_the_shares_of_several_processes_are_what_one_process_drops(
    channels: bool, versions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = torch.rand(versions, 8, 3, 5, 6)
    alone = drop(batch.flatten(0, 1), channels=channels, versions=versions).view_as(batch)
    monkeypatch.setattr("training.networks.dropout.processes", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr("training.networks.dropout.share_of", lambda whole, rank=rank: whole.chunk(2)[rank])
        share = batch.chunk(2, dim=1)[rank]
        found = drop(share.flatten(0, 1), channels=channels, versions=versions)
        assert torch.equal(found, alone.chunk(2, dim=1)[rank].flatten(0, 1))
