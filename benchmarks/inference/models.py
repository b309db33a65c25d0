"""What inference with several models costs, in turns within one run, and as a ratio to the first of them.

    python -m benchmarks.inference.models models/digits/2 models/digits/3 [OTHER…] [--seconds 10]

Each is an artifact's folder, or a model.onnx. Random pictures are run one by one and in batches of 32, on one thread of
ONNX Runtime. The time is the thread's own, so that other work on the machine disturbs it little; the lowest of all
rounds counts. Only ratios mean anything on another machine.
"""

import argparse
from pathlib import Path
from time import perf_counter, thread_time

import numpy as np
import onnxruntime

BATCHES = (1, 32)
PICTURES = 64
"""Pictures that a model runs before it is the next one's turn."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    sessions = [session(place) for place in options.models]
    columns = [lowest(sessions, batch, options.seconds / len(BATCHES)) for batch in BATCHES]
    print("| model | " + " | ".join(f"us a picture at batch {batch} | ratio" for batch in BATCHES) + " |")
    print("|---" * (1 + 2 * len(BATCHES)) + "|")
    for place, *found in zip(options.models, *columns, strict=True):
        cells = [f"{1e6 * one:.0f} | {one / column[0]:.3f}" for one, column in zip(found, columns, strict=True)]
        print(f"| {place} | {' | '.join(cells)} |")


def session(place: Path) -> onnxruntime.InferenceSession:
    """Load a model as the service does with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    file = place / "model.onnx" if place.is_dir() else place
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def lowest(sessions: list[onnxruntime.InferenceSession], batch: int, seconds: float) -> list[float]:
    """Return the lowest time of a picture with each of ``sessions``, in seconds of the thread."""
    generator = np.random.default_rng(0)
    inputs = [one.get_inputs()[0] for one in sessions]
    feeds = [{each.name: generator.integers(0, 256, (batch, *each.shape[1:]), np.uint8)} for each in inputs]
    found = [float("inf")] * len(sessions)
    end = perf_counter() + seconds
    while perf_counter() < end:
        for place, (one, feed) in enumerate(zip(sessions, feeds, strict=True)):
            one.run(None, feed)  # the caches are the previous model's
            for _ in range(max(1, PICTURES // batch)):
                started = thread_time()
                one.run(None, feed)
                found[place] = min(found[place], (thread_time() - started) / batch)
    return found


if __name__ == "__main__":
    main()
