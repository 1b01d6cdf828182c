"""Aspen itself, one round of one benchmark in a process of its own; the count is the benchmark's own."""

from __future__ import annotations

import sys

from aspen.bench.actors import measure

print(measure(sys.argv[1], 1)[sys.argv[1]])
