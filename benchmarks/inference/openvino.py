"""OpenVINO beside ONNX Runtime on the CPU: processor time of a batch, as a ratio.

    pip install -c constraints.txt -e '.[serve-cpu,openvino]'
    python -m benchmarks.inference.openvino [--rounds 15]

Both run the bundled models with one thread, in turns, in one process. Times are those of the processor, the median of
all rounds. Only the ratios mean anything on another machine.
"""

import argparse
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np

from export.format.artifact import read_artifact
from service.inference.backends import open_backend

MODELS = ("digits/3", "signs/2")
BATCHES = (1, 8, 64)
ROUND_S = 0.3
"""Least processor time of a round."""


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(
        "| model | pictures a batch | OpenVINO to ONNX Runtime, processor time | largest difference of a probability |"
    )
    print("|---|---|---|---|")
    for name in MODELS:
        artifact = read_artifact(Path("models") / name)
        backends = [open_backend(artifact, "cpu", threads=1, openvino=openvino) for openvino in (False, True)]
        golden, _ = artifact.golden()
        for size in BATCHES:
            images = golden[np.arange(size) % len(golden)]
            answers = [backend.run(images)[artifact.manifest.probabilities] for backend in backends]
            times: list[list[float]] = [[], []]
            for _ in range(rounds):
                for backend, found in zip(backends, times, strict=True):
                    count, begun = 0, process_time()
                    while (spent := process_time() - begun) < ROUND_S:
                        backend.run(images)
                        count += 1
                    found.append(spent / count)
            ratio = median(times[1]) / median(times[0])
            print(f"| {name} | {size} | {ratio:.2f} | {np.abs(answers[0] - answers[1]).max():.1e} |")


if __name__ == "__main__":
    main()
