"""`perturb`: makes a process different where no right program can tell.

The second run of a seed happens in another process, with another PYTHONHASHSEED, after `perturb(key)`, and with its
garbage collected at other steps (`Cluster(gc_every_steps=...)`): what depends on addresses, on hashes or on the
collector then goes another way, and the two traces part.
"""

from __future__ import annotations

from aspen.sim.clock import VirtualRandom


class _Ballast:
    """Takes the place of an instance."""


def perturb(key: int) -> list[object]:
    """Shifts the addresses of what is allocated from now on. Keep the result for as long as the run lasts."""
    rng = VirtualRandom(key, "perturb").rng("addresses")
    kept: list[object] = []
    for size in range(16, 513, 16):
        blocks = [bytes(size - 33) if size > 33 else (size,) for _ in range(rng.randrange(200))]
        kept.extend(block for block in blocks if rng.random() < 0.5)
    things = [_Ballast() for _ in range(2_000 + rng.randrange(2_000))]
    kept.extend(thing for thing in things if rng.random() < 0.5)
    return kept
