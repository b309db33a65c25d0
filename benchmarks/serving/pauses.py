"""How long the machine takes a core away from who runs on it: what no server can answer in.

    taskset -c 0 python -m benchmarks.serving.pauses [--seconds 3]

Looks at the clock without end, and prints one JSON object of the gaps of over a millisecond.
"""

import argparse
import json
from time import perf_counter
from typing import NamedTuple

PAUSE_S = 0.001


class Pauses(NamedTuple):
    """Of one core."""

    seconds: float
    number: int
    lost_ms: float
    longest_ms: float


def look(seconds: float) -> Pauses:
    """Watch the clock for so long."""
    started = last = perf_counter()
    gaps = [0.0]
    while last < started + seconds:
        now = perf_counter()
        if now - last > PAUSE_S:
            gaps.append(now - last)
        last = now
    return Pauses(last - started, len(gaps) - 1, sum(gaps) * 1000, max(gaps) * 1000)


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    print(json.dumps(look(parser.parse_args().seconds)._asdict()))


if __name__ == "__main__":
    main()
