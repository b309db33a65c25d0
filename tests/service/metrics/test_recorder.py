import threading

from service.metrics.recorder import Recorder


def test_what_is_counted_can_be_read_while_another_model_is_loaded() -> None:
    meters = Recorder()
    meters.of_model(("first", 1))
    loader = threading.Thread(target=lambda: [meters.of_model(("more", version)) for version in range(2000)])
    loader.start()
    while loader.is_alive():
        assert ("inferred", "first", "1") in meters.counts()


def test_a_version_that_is_loaded_again_goes_on_with_its_counts() -> None:
    meters = Recorder()
    for size in (4, 1, 4):
        meters.of_model(("digits", 2)).inferred(size, 0.5, 0.25)
    meters.of_model(("digits", 2)).failed(3)
    counts = meters.counts()
    assert counts["batch", "digits", "2", "4"] == [2, 0.5]
    assert counts["batch", "digits", "2", "1"] == [1, 0.25]
    assert counts["inferred", "digits", "2"] == [1.5, 3]
