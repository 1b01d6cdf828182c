"""What runs only in `make soak`."""

from __future__ import annotations

import os

import pytest

SOAK = os.environ.get("ASPEN_SOAK") == "1"
soak = pytest.mark.skipif(not SOAK, reason="a long run of real processes: make soak, or ASPEN_SOAK=1")
