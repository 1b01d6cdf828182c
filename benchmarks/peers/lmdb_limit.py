"""LMDB alone, in one process: what a store over it cannot pass. Prints one JSON object.

The settings are the store's (`metasync=False`, no write map): a commit is one fdatasync. N clients at once are N puts
in one transaction, which is the best that a group commit can do; a get is a read transaction of its own.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable

import lmdb

KEYS = 10_000
VALUE_BYTES = 256
RANGE = 100


def rate(work: Callable[[], int], seconds: float) -> tuple[float, list[float]]:
    """Operations a second, and how long each turn of the loop took."""
    done, took = 0, []
    began = time.perf_counter()
    while (asked := time.perf_counter()) < began + seconds:
        done += work()
        took.append(time.perf_counter() - asked)
    return done / (time.perf_counter() - began), sorted(took)


def main() -> None:
    """Measures in a temporary folder of the current one's disk."""
    seconds = float(sys.argv[1])
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(dir=os.getcwd()) as folder:
        env = lmdb.open(folder, map_size=1 << 30, metasync=False)

        def key() -> bytes:
            return b"bench/%010d" % rng.randrange(KEYS)

        def put(count: int) -> int:
            with env.begin(write=True) as txn:
                for _ in range(count):
                    txn.put(key(), rng.randbytes(VALUE_BYTES))
            return count

        def get() -> int:
            with env.begin() as txn:
                if txn.get(key()) is None:
                    raise SystemExit("a key that was put is not there")
            return 1

        def scan() -> int:
            with env.begin() as txn:
                cursor = txn.cursor()
                cursor.set_range(b"bench/%010d" % rng.randrange(KEYS - RANGE))
                return int(sum(1 for _, _ in zip(cursor, range(RANGE), strict=False)) == RANGE)

        with env.begin(write=True) as txn:
            for number in range(KEYS):
                txn.put(b"bench/%010d" % number, rng.randbytes(VALUE_BYTES))
        one, _ = rate(lambda: put(1), seconds)
        hundred, took = rate(lambda: put(100), seconds)
        thousand, _ = rate(lambda: put(1000), seconds)
        gets, _ = rate(get, seconds)
        ranges, _ = rate(scan, seconds)
        env.close()
    print(
        json.dumps(
            {
                "put_1_per_s": one,
                "put_100_per_s": hundred,
                "put_1000_per_s": thousand,
                "put_100_p99_ms": took[len(took) * 99 // 100] * 1e3,
                "get_linearizable_100_per_s": gets,
                "get_serializable_100_per_s": gets,
                "range_100_per_s": ranges,
            }
        )
    )


if __name__ == "__main__":
    main()
