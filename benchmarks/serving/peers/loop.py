"""No server: the same work in a plain Python loop, in batches of 64. Prints pictures per second."""

import sys
import time
from pathlib import Path

from work import Work  # beside this file

BATCH = 64

if __name__ == "__main__":
    work, body, seconds = Work(), Path(sys.argv[1]).read_bytes(), float(sys.argv[2])
    work.infer([work.decode(body)] * BATCH)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        work.infer([work.decode(body) for _ in range(BATCH)])
        done += BATCH
    print(done / (time.perf_counter() - started))
