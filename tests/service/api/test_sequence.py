"""A model that reads a sequence, over HTTP: the whole sequence, each of its objects, and a transform for each."""

import base64
import re
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from PIL import Image

from export.exporter import Destination, export_run
from export.format.artifact import Artifact
from export.onnx import OnnxRuntime
from service.client import Client
from service.errors import InvalidParameterError, ModelLoadError
from service.inference.rectified.options import RectifiedOptions
from service.schemas.answers import Prediction
from service.score.rows import Row
from service.score.run import find_model, worker_settings
from service.score.scorer import ScoreOptions, Scorer
from service.settings import Settings
from tests.conftest import Service, start_service, wait_until
from tests.service.answers import error, predict
from tests.service.exposed import Exposed
from tests.service.pictures import Answer, encode
from training.fitting.runs import Run


@pytest.fixture(scope="module")
def artifact(sequence_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export_run(sequence_run, OnnxRuntime(), Destination(tmp_path_factory.mktemp("models"), "digits"))


@pytest.fixture(scope="module")
def service(artifact: Artifact) -> Iterator[Service]:
    """Serves the model alone."""
    with start_service("--models", artifact.folder.parents[1], "--grpc-port", 0) as started:
        yield started


@pytest.fixture(scope="module")
def pictures(artifact: Artifact) -> NDArray[np.uint8]:
    """Test pictures ``(N, H, W)``."""
    images, _ = artifact.golden()
    return images[..., 0]


def expected(artifact: Artifact, index: int) -> NDArray[np.float32]:
    """The probabilities ``(2, 10)`` that were recorded for a golden picture."""
    _, answers = artifact.golden()
    found: NDArray[np.float32] = answers["probabilities"][index]
    return found


def best(predictions: list[Answer]) -> str:
    return str(predictions[0]["label"])


def test_the_answer_names_the_whole_sequence_and_each_object_of_it(
    service: Service, artifact: Artifact, pictures: NDArray[np.uint8]
) -> None:
    for index, picture in enumerate(pictures):
        found, probabilities = predict(service, encode(picture), top_k=3), expected(artifact, index)
        digits = probabilities.argmax(axis=1)
        assert best(found["predictions"]) == " ".join(map(str, digits))
        assert found["predictions"][0]["index"] == 10 * digits[0] + digits[1]
        assert found["predictions"][0]["probability"] == pytest.approx(probabilities.max(axis=1).prod(), abs=1e-4)
        assert [best(each["predictions"]) for each in found["sequence"]] == [str(digit) for digit in digits]
        for each, row in zip(found["sequence"], probabilities, strict=True):
            assert len(each["predictions"]) == 3
            assert each["predictions"][0]["probability"] == pytest.approx(row.max(), abs=1e-4)


def test_there_is_a_transform_for_each_object_in_the_same_order(service: Service, pictures: NDArray[np.uint8]) -> None:
    found = predict(service, encode(pictures[0]))
    assert [each["name"] for each in found["transforms"]] == ["object1", "object2"]
    assert found["theta"] == found["transforms"][0]["theta"]
    left, right = (np.mean(each["corners"], axis=0)[0] for each in found["transforms"])
    assert left < right
    assert all(each["rectified"]["data"] for each in found["transforms"])


def test_all_probabilities_of_an_object_add_up_to_1(service: Service, pictures: NDArray[np.uint8]) -> None:
    found = predict(service, encode(pictures[0]), top_k=1000)
    for each in found["sequence"]:
        assert sum(one["probability"] for one in each["predictions"]) == pytest.approx(1, abs=1e-5)
    assert len(found["predictions"]) == 100
    assert sum(one["probability"] for one in found["predictions"]) == pytest.approx(1, abs=1e-4)


def test_a_large_picture_is_read_like_a_small_one_and_its_crops_come_from_it(
    service: Service, pictures: NDArray[np.uint8]
) -> None:
    large = np.asarray(Image.fromarray(pictures[0]).resize((256, 160), Image.Resampling.BILINEAR))
    found = predict(service, encode(large), rectified_size="source", points=2)
    assert len(found["transforms"][1]["points"]) == 4
    np.testing.assert_allclose(found["transforms"][1]["points"][0], found["transforms"][1]["corners"][0], atol=0.01)
    assert found["transforms"][1]["rectified"]["width"] > 40


def test_each_picture_of_a_batch_has_its_sequence(service: Service, pictures: NDArray[np.uint8]) -> None:
    files = [("images", encode(picture)) for picture in pictures[:2]]
    results = service.client.post("/predict/batch", files=files).json()["results"]
    alone = [predict(service, encode(picture)) for picture in pictures[:2]]
    assert [each["sequence"] for each in results] == [each["sequence"] for each in alone]


def test_a_region_and_views_work_as_for_any_classifier(service: Service, pictures: NDArray[np.uint8]) -> None:
    wide = np.zeros((80, 128), np.uint8)
    wide[20:60, 30:94] = pictures[0]
    response = service.client.post("/predict", params={"region": "30,20,94,60"}, files={"image": encode(wide)})
    (found,) = response.json()["regions"]
    assert found["predictions"][0]["label"] == best(predict(service, encode(pictures[0]))["predictions"])
    assert len(predict(service, encode(pictures[0]), views=4)["sequence"]) == 2


def test_the_reliability_of_a_single_frame_is_refused(service: Service, pictures: NDArray[np.uint8]) -> None:
    response = service.client.post("/predict", params={"reliability": 8}, files={"image": encode(pictures[0])})
    assert response.status_code == 422
    error(response.content, "invalid_parameter", "leave it out")


def test_a_single_rectified_picture_is_refused_and_all_of_them_are_given_as_json(
    service: Service, pictures: NDArray[np.uint8]
) -> None:
    files = {"image": encode(pictures[0])}
    response = service.client.post("/rectify", files=files)
    assert response.status_code == 422
    error(response.content, "invalid_parameter", "POST /predict returns all of them")
    whole = service.client.post("/rectify", files=files, headers={"accept": "application/json"}).json()
    assert len(whole["transforms"]) == 2


def test_the_list_of_models_says_how_many_objects_it_reads(service: Service) -> None:
    (model,) = service.client.get("/models").json()["models"]
    assert model["sequence"] == 2
    assert [each["name"] for each in model["transforms"]] == ["object1", "object2"]


def test_the_open_inference_protocol_has_the_same_numbers_and_names_sequences(
    service: Service, artifact: Artifact, pictures: NDArray[np.uint8]
) -> None:
    described = {each["name"]: each["shape"] for each in service.client.get("/v2/models/digits").json()["outputs"]}
    assert described["probabilities"] == [-1, 2, 10]
    images = pictures[:2, :, :, None]
    sent = {"name": "image", "datatype": "UINT8", "shape": images.shape, "data": images.ravel().tolist()}
    wanted = [{"name": "probabilities"}, {"name": "theta_object2"}]
    raw = service.client.post("/v2/models/digits/infer", json={"inputs": [sent], "outputs": wanted}).json()["outputs"]
    assert [each["shape"] for each in raw] == [[2, 2, 10], [2, 2, 3]]
    np.testing.assert_allclose(np.reshape(raw[0]["data"], (2, 2, 10))[1], expected(artifact, 1), atol=1e-4)
    named = [{"name": "probabilities", "parameters": {"classification": 1}}]
    told = service.client.post("/v2/models/digits/infer", json={"inputs": [sent], "outputs": named}).json()["outputs"]
    labels = [text.rpartition(":")[2] for text in told[0]["data"]]
    assert labels == [" ".join(map(str, expected(artifact, index).argmax(axis=1))) for index in range(2)]
    named = [{"name": "probabilities", "parameters": {"classification": 1000}}]
    (told,) = service.client.post("/v2/models/digits/infer", json={"inputs": [sent], "outputs": named}).json()[
        "outputs"
    ]
    assert told["shape"] == [2, 100]
    assert len(told["data"]) == 200


def test_the_client_reads_the_sequence_also_of_a_frame(service: Service, pictures: NDArray[np.uint8]) -> None:
    with Client(service.url) as client:
        found = client.predict(encode(pictures[0]))
        with client.stream() as stream:
            stream.send(encode(pictures[0]))
            streamed = stream.receive().answer
    assert found.sequence is not None
    assert len(found.sequence) == 2
    assert isinstance(streamed, Prediction)
    assert streamed.sequence == found.sequence


def test_grpc_names_the_same_sequences(service: Service, artifact: Artifact, pictures: NDArray[np.uint8]) -> None:
    wait_until(lambda: "grpc_listens" in service.log())
    address = re.search(r'"address": "([^"]+)"', service.log())
    assert address is not None
    sent = triton.InferInput("image", [2, 40, 64, 1], "UINT8")
    sent.set_data_from_numpy(pictures[:2, :, :, None])
    wanted = [triton.InferRequestedOutput("probabilities", class_count=1)]
    with triton.InferenceServerClient(address[1]) as client:
        named = client.infer("digits", [sent], outputs=wanted).as_numpy("probabilities")
        raw = client.infer("digits", [sent]).as_numpy("probabilities")
    assert named is not None
    assert raw is not None
    np.testing.assert_allclose(raw[1], expected(artifact, 1), atol=1e-4)
    labels = [text.decode().rpartition(":")[2] for text in named.ravel()]
    assert labels == [" ".join(map(str, expected(artifact, index).argmax(axis=1))) for index in range(2)]


def test_score_writes_the_most_probable_sequences(artifact: Artifact, pictures: NDArray[np.uint8]) -> None:
    settings = Settings(models=artifact.folder.parents[1], device="cpu")
    name, version, digest = find_model(settings, "digits")
    worker, _ = worker_settings(settings, f"{name}/{version}", 1)
    scorer = Scorer(ScoreOptions(worker, name, version, digest)._replace(top_k=2))
    try:
        found = scorer.score([Row(0, "0.png", encode(pictures[0]))]).to_pylist()[0]
    finally:
        scorer.close()
    digits = expected(artifact, 0).argmax(axis=1)
    assert found["classes"][0] == " ".join(map(str, digits))
    assert len(found["probabilities"]) == 2
    assert found["probabilities"][0] == pytest.approx(expected(artifact, 0).max(axis=1).prod(), abs=1e-4)


def test_score_refuses_what_is_told_of_a_single_frame(artifact: Artifact) -> None:
    settings = Settings(models=artifact.folder.parents[1], device="cpu")
    assert find_model(settings, "digits")[0] == "digits"
    for asked in ({"reliability": 8}, {"rectified": True}):
        with pytest.raises(ModelLoadError, match="leave them out"):
            find_model(settings, "digits", **asked)


def test_one_image_of_several_is_refused_where_the_options_are_read(artifact: Artifact) -> None:
    assert list(RectifiedOptions().indices(artifact.manifest)) == [0, 1]
    with pytest.raises(InvalidParameterError, match="an image of each object, not one"):
        RectifiedOptions().of_main(artifact.manifest)


def test_a_single_rectified_picture_is_refused_before_the_model_runs(
    service: Service, pictures: NDArray[np.uint8]
) -> None:
    def inferred() -> float:
        return Exposed(service.client.get("/metrics").text)("stn_batch_size_sum", model="digits")

    before = inferred()
    for size in ("model", "source"):
        response = service.client.post(
            "/rectify", params={"rectified_size": size}, files={"image": encode(pictures[0])}
        )
        error(response.content, "invalid_parameter", "POST /predict returns all of them")
    file = base64.b64encode(encode(pictures[0])).decode()
    sent = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [file]}
    for parameters in ({}, {"rectified_size": "model"}):
        wanted = [{"name": "rectified_source", "parameters": parameters}]
        response = service.client.post("/v2/models/digits/infer", json={"inputs": [sent], "outputs": wanted})
        assert response.status_code == 400
        assert "an image of each object, not one" in response.json()["error"]
    assert inferred() == before
    predict(service, encode(pictures[0]))
    assert inferred() == before + 1
