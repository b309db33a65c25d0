"""What one process does with rows."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from service.errors import OutputError
from service.inference.rectified.options import RectifiedOptions
from service.inference.views.options import ViewOptions
from service.inference.views.reliability import Reliability
from service.repository.startup import load_engine
from service.score.answers import SCHEMA
from service.score.rows import Row
from service.score.run import find_model, worker_settings
from service.score.scorer import ScoreOptions, Scorer
from service.settings import Settings
from tests.conftest import REPOSITORY
from tests.service.artifacts import write_twin
from tests.service.pictures import drawing, encode
from tests.service.score.inputs import LABELS, PICTURES

SETTINGS = Settings(models=REPOSITORY / "models", device="cpu", max_bytes=20_000)


def options(settings: Settings = SETTINGS, reference: str = "digits", **changes: object) -> ScoreOptions:
    name, version, digest = find_model(settings, reference)
    worker, _ = worker_settings(settings, f"{name}/{version}", 1)
    return ScoreOptions(worker, name, version, digest)._replace(**changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    made = Scorer(options(top_k=2))
    yield made
    made.close()


def test_the_columns_are_those_of_a_prediction(scorer: Scorer) -> None:
    rows = [Row(number, f"{number}.png", content) for number, content in enumerate(PICTURES)]
    batch = scorer.score(rows)
    assert batch.schema == SCHEMA
    found = batch.to_pylist()
    assert [row["classes"][0] for row in found] == LABELS
    assert all(len(row["classes"]) == len(row["probabilities"]) == 2 for row in found)
    assert [(row["row"], row["path"]) for row in found] == [(number, f"{number}.png") for number in range(4)]

    async def predict() -> None:
        async with load_engine(options().settings) as engine:
            answer = await engine.predict(engine.find("digits"), PICTURES[0])
        main = answer.output.transforms[answer.model.manifest.main]
        assert np.array_equal(np.array(found[0]["theta"], np.float32), np.array(main.theta, np.float32))
        assert found[0]["probabilities"] == answer.output.probabilities[:2].tolist()
        expected = np.array(main.region) * (answer.width, answer.height)
        assert np.allclose(found[0]["corners"], expected, atol=1e-4)
        assert (found[0]["width"], found[0]["height"]) == (answer.width, answer.height)

    asyncio.run(predict())


def test_a_broken_picture_is_a_row_with_an_error_and_the_others_are_scored(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "seven.png").write_bytes(PICTURES[0])
    (tmp_path / "large.png").write_bytes(bytes(20_001))
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    named = {
        "seven.png": None,
        "folder.png": "unreadable",
        "pipe.png": "unreadable",
        "nothing.png": "unreadable",
        "zero\0byte.png": "unreadable",
        "large.png": "too_large",
    }
    rows = [Row(number, name, location=f"{tmp_path}/{name}") for number, name in enumerate(named)]
    rows += [Row(10, "", b""), Row(11, "", b"seven"), Row(12, "", PICTURES[0][:90]), Row(13, "", problem="lost")]
    codes = [*named.values(), "invalid_image", "unsupported_media_type", "invalid_image", "unreadable"]
    found = scorer.score(rows).to_pylist()
    assert [row["error"] for row in found] == codes
    assert all((row["message"] is None) == (row["error"] is None) == (row["theta"] is not None) for row in found)


def test_pictures_at_urls_are_read_by_fsspec(scorer: Scorer) -> None:
    fsspec.filesystem("memory").pipe({"/scorer/seven.png": PICTURES[0], "/scorer/large.png": bytes(20_001)})
    names = ["seven.png", "large.png", "nothing.png"]
    rows = [Row(number, name, location=f"memory://scorer/{name}") for number, name in enumerate(names)]
    rows.append(Row(3, "", location="nobody://bucket/a.png"))
    assert scorer.score(rows).column("error").to_pylist() == [None, "too_large", "unreadable", "unreadable"]


def test_rectified_pictures_are_written_and_named(tmp_path: Path) -> None:
    form = RectifiedOptions("jpeg", (40, 60), only_main=True)
    scorer = Scorer(options(rectified=tmp_path, form=form))
    rows = [Row(12_345, "a/Größe 1?.png", encode(drawing(300, 200))), Row(12_346, "b.png", b"broken")]
    first, second = scorer.score(rows).column("rectified").to_pylist()
    assert (first, second) == ("00001/000012345-Gr_e_1_.jpeg", None)
    with Image.open(tmp_path / first) as image:
        assert (image.format, image.size) == ("JPEG", (60, 40))
    assert [file.name for file in (tmp_path / "00001").iterdir()] == [Path(first).name]
    (tmp_path / "00002").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write .*; free some space"):
        scorer.score([Row(20_000, "c.png", PICTURES[0])])
    scorer.close()


def test_reliability_is_told_if_it_is_asked_for(scorer: Scorer) -> None:
    rows = [Row(0, "seven.png", PICTURES[0]), Row(1, "broken.png", b"broken"), Row(2, "two.png", PICTURES[1])]
    assert scorer.score(rows).column("reliability").to_pylist() == [None] * 3
    telling = Scorer(options(reliability=8))
    seven, broken, two = telling.score(rows).column("reliability").to_pylist()
    telling.close()
    assert broken is None
    assert seven != two

    async def predict() -> Reliability | None:
        async with load_engine(options().settings) as engine:
            return (await engine.predict(engine.find("digits"), PICTURES[0], views=ViewOptions(8))).reliability

    expected = asyncio.run(predict())
    assert expected is not None
    assert seven == pytest.approx(expected._asdict(), rel=1e-4)


def test_several_transformers_have_a_column(tmp_path: Path) -> None:
    write_twin(tmp_path / "twin" / "1", branch=2)
    settings = Settings(models=tmp_path, device="cpu")
    scorer = Scorer(options(settings, "twin"))
    (row,) = scorer.score([Row(0, "seven.png", PICTURES[0])]).to_pylist()
    assert [transform["name"] for transform in row["transforms"]][1] == "second"
    assert row["transforms"][0]["theta"] == row["theta"]
    scorer.close()
