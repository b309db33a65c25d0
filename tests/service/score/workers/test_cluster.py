"""Runs on a real Ray cluster of two nodes on this machine: ``make test-ray``."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import InputError, ScoreError
from service.score.command import main
from service.score.rows import CHUNK_ROWS, Row, chunks
from service.score.run import Run, score
from service.score.scorer import ScoreOptions
from service.score.workers.processes import Processes
from service.score.workers.workers import Scored
from tests.conftest import REPOSITORY
from tests.service.score.inputs import PICTURES, select, write_folder
from tests.service.score.test_scorer import options

ray = pytest.importorskip("ray", reason="Ray is not installed; `make test-ray` installs it and runs this")

from ray.cluster_utils import Cluster as Machines  # noqa: E402

from service.score.workers.cluster import Cluster, Share, check_shared, connect, find_share  # noqa: E402

OPTIONS = options()
NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 * 2**20}


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """A cluster of one node with a core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        made = Machines(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        yield made
        made.shutdown()


@pytest.fixture(autouse=True)
def _leave() -> Iterator[None]:
    yield
    ray.shutdown()


def local(pictures: Path, out: Path, asked: ScoreOptions = OPTIONS) -> pa.Table:
    with Processes(asked, 1) as workers:
        score(Run(select(pictures), asked, out), workers, bar=False)
    return pq.read_table(out)


def test_a_node_that_is_killed_half_way_changes_no_row(tmp_path: Path, machines: Any) -> None:
    count = 20 * CHUNK_ROWS
    write_folder(tmp_path / "pictures", count)
    (tmp_path / "pictures" / "0005.png").write_bytes(b"no picture")
    second = machines.add_node(**NODE)
    machines.wait_for_nodes()
    connect(machines.address)
    assert find_share("auto", None) == Share(2)

    class Killing(Cluster):
        """Kills a node once both work."""

        def score(self, chunks: Iterable[list[Row]]) -> Iterator[Scored]:
            for number, answers in enumerate(super().score(chunks)):
                if number == 3:
                    machines.remove_node(second, allow_graceful=False)
                yield answers

    run = Run(select(tmp_path / "pictures"), OPTIONS, tmp_path / "out", part_rows=1000)
    with Killing(OPTIONS, Share(2)) as workers:
        while len(workers._ready) < 2:
            list(Cluster.score(workers, [[Row(0, "7.png", PICTURES[0])]]))
        outcome = score(run, workers, bar=False)
        assert (outcome.rows, outcome.errors, outcome.is_complete) == (count, {"unsupported_media_type": 1}, True)
    found = pq.read_table(tmp_path / "out")
    assert found.column("row").to_pylist() == list(range(count))
    assert found.equals(local(tmp_path / "pictures", tmp_path / "local"))


def test_the_command_goes_on_on_a_cluster_where_it_was_on_one_machine(
    tmp_path: Path, machines: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_folder(tmp_path / "pictures", 20)
    monkeypatch.chdir(tmp_path)
    fixed = ["pictures", "--out", "out", "--rectified", "rectified", "--model", "digits", "--device", "cpu"]
    fixed += ["--models", str(REPOSITORY / "models"), "--workers", "1"]
    assert main([*fixed, "--limit", "7"]) == 0
    assert main([*fixed, "--ray", machines.address]) == 0
    assert "out: 20 pictures" in capsys.readouterr().err
    table = pq.read_table("out")
    assert table.column("path").to_pylist() == [str(file.relative_to(tmp_path)) for file in files]
    assert all((tmp_path / "rectified" / name).is_file() for name in table.column("rectified").to_pylist())
    assert main([*fixed, "--ray", "127.0.0.1:1"]) == 1
    assert "start one with `ray start --head`" in capsys.readouterr().err


def test_what_a_node_cannot_do_is_said_with_its_cure(tmp_path: Path, machines: Any) -> None:
    connect(machines.address)
    rows = [Row(number, "7.png", PICTURES[0]) for number in range(3)]
    changed = OPTIONS._replace(digest="another")
    with pytest.raises(ScoreError, match=r"on a node of the cluster: digits/3 has changed meanwhile; .* at a URL"):
        list(Cluster(changed, Share(1)).score(chunks(rows)))
    with pytest.raises(ScoreError, match=r"no actor could start in 1 s; `ray status`"):
        list(Cluster(OPTIONS, Share(1, cores=9), start_s=1).score(chunks(rows)))
    with pytest.raises(InputError, match="the cluster has no GPU"):
        find_share("cuda", None)
    assert list(Cluster(OPTIONS, Share(1, cores=9)).score([])) == []


def test_files_that_only_this_machine_has_end_the_run(tmp_path: Path) -> None:
    (file,) = write_folder(tmp_path, 1)
    rows = [Row(0, "0000.png", location=str(file))]
    answers = pa.record_batch({"error": ["unreadable"], "rectified": pa.array([None], pa.string())})
    with pytest.raises(InputError, match=r"cannot read 0000.png, and this machine can; .* all nodes share"):
        check_shared(rows, answers, None)
    file.unlink()
    check_shared(rows, answers, None)
    written = pa.record_batch({"error": pa.array([None], pa.string()), "rectified": ["00000/0.png"]})
    with pytest.raises(ScoreError, match=r"has written 00000/0.png, and it is not in"):
        check_shared(rows, written, tmp_path)
