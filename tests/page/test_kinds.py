"""Models of other kinds than the bundled ones: splines, and several transformers, on oblong pictures."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import BrowserContext, Page, Request, expect

from export.format.artifact import pack_golden, seal, write_artifact
from export.onnx import OnnxRuntime
from export.parity import trained
from tests.conftest import Service, start_service
from tests.export.test_kinds import composed, interface, pictures, served
from tests.page.conftest import Complaints
from tests.page.looking import ask, gap, on_screen, outline, stage_picture, wait_for
from tests.service.artifacts import write_twin
from tests.service.pictures import ARTIFACT
from training.recipes.digits import MNIST_SEQUENCE
from training.recipes.recipe import Recipe, change_recipe


def write_untrained(folder: Path, recipe: Recipe, **other: object) -> None:
    """An untrained network that looks another way at each picture; the manifest says ``other`` things too."""
    network, stated, images = served(recipe), interface(recipe), pictures(recipe, count=4)
    outputs = tuple(stated.outputs)
    model = OnnxRuntime().serialise(network, torch.from_numpy(images[:2]), outputs)
    golden = pack_golden(stated.input.name, images, trained(network, outputs)(images))
    change = {"transforms": stated.transforms, "input": stated.input, "outputs": outputs} | other
    write_artifact(folder, *seal(ARTIFACT.manifest.model_copy(update=change), model, golden))


def row() -> Recipe:
    """The recipe of a network with a crop for each of two objects."""
    fields: dict[str, object] = {"sequence": 2, "canvas": (40, 64), "localisation_size": (20, 32)}
    return change_recipe(MNIST_SEQUENCE, fields | {"rectified": (14, 16), "classifier_width": 4})


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serves splines, twins and a sequence; they have no samples."""
    models = tmp_path_factory.mktemp("models")
    write_untrained(models / "splines" / "1", composed("tps"))
    write_untrained(models / "rows" / "1", row(), sequence=2, reference=None, reliability=None)
    write_twin(models / "twins" / "1", step=2)
    with start_service("--models", models) as service:
        yield service


def visit(context: BrowserContext, complaints: Complaints, service: Service, model: str) -> Page:
    page = context.new_page()
    complaints.listen(page)
    page.goto(f"{service.url}/#model={model}&version=1")
    expect(page.locator("#model")).to_have_value(f"{model}/1")
    page.locator("#file").set_input_files(Path(__file__).parents[2] / "models" / "digits" / "samples" / "5.png")
    page.locator("#classes li").first.wait_for()
    return page


def test_a_spline_is_drawn_as_it_bends(context: BrowserContext, complaints: Complaints, kinds: Service) -> None:
    page = visit(context, complaints, kinds, "splines")
    page.locator("#turn").fill("30")

    def agrees() -> bool:
        answer = ask(kinds, stage_picture(page), model="splines", points=9)
        points = answer["points"]
        border = points[:8] + points[8:80:9] + points[80:72:-1] + points[72:0:-9]
        return gap(outline(page), on_screen(page, border, 28, 20)) < 1

    wait_for(page, agrees, "the border is that of the sample points")
    lines = page.locator("#overlay .grid").get_attribute("d") or ""
    assert lines.count("M") == 14  # seven lines each way inside the border


def test_each_of_several_transformers_is_drawn(context: BrowserContext, complaints: Complaints, kinds: Service) -> None:
    page = visit(context, complaints, kinds, "twins")
    expect(page.locator("#overlay .look")).to_have_count(2)
    expect(page.locator("#looks li")).to_have_count(2)
    expect(page.locator("#looks li").nth(1)).to_contain_text("second")


def test_the_crops_of_a_sequence_are_told_in_its_order_and_none_of_them_is_asked_for_alone(
    context: BrowserContext, complaints: Complaints, kinds: Service
) -> None:
    page = visit(context, complaints, kinds, "rows")
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    page.on("request", note)
    page.locator("#turn").fill("10")
    expect(page.locator("#looks li")).to_have_text([re.compile("^object1: "), re.compile("^object2: ")])
    answer = ask(kinds, stage_picture(page), model="rows")
    shown = page.locator("#words")
    wait_for(
        page,
        lambda: page.locator("#looks li").first.inner_text().lower() == f"object1: {shown.inner_text().lower()}",
        "the first object is described, whose image is shown",
    )
    assert answer["rectified"]["width"] == page.locator("#rectified").evaluate("image => image.width") == 16
    expect(page.locator("#spoken")).to_contain_text(answer["predictions"][0]["label"])
    page.wait_for_timeout(200)
    assert any("/predict" in url for url in asked)
    assert not any("/rectify" in url for url in asked)
