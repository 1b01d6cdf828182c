"""What all tests share: nodes in virtual time."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aspen.actor import System
from aspen.sim import World

if importlib.util.find_spec("aspen.campaign") and not any(
    point.value == "aspen.campaign.plugin" for point in importlib.metadata.entry_points(group="pytest11")
):
    pytest_plugins = ["aspen.campaign.plugin"]  # from a checkout that was installed before it had the entry point

Run = Callable[..., Any]


@pytest.fixture
def world() -> Iterator[World]:
    with World(seed=0) as world:
        yield world


@pytest.fixture
def system(world: World) -> Iterator[System]:
    """A node in virtual time, messages strict, runnable actors taken by the seed."""
    system = System("test", world.ports("test"), strict_messages=True, choose=world.choose)
    yield system
    system.close()
