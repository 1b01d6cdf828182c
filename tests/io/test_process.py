"""What a node asks of the process that it is."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

MEBIBYTES = """
import resource, sys
from aspen.io.process import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    many = [bytearray(1 << 20) for _ in range(8)]
    del many
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only of glibc is it known how to ask for it")
def test_freed_memory_is_kept_for_what_comes_next() -> None:
    def pages(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", MEBIBYTES, how], capture_output=True, text=True, check=True, timeout=60
        )
        return int(done.stdout)

    kept, given_back = pages("kept"), pages("as it is")
    assert kept < 2 * 8 * 256
    assert given_back > 5 * kept
