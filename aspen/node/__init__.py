"""A node: configuration, the order of its boot and its end, and what it tells of itself.

    config    settings from a file, the environment and flags, validated once
    loading   applications by `MODULE:APP` or by entry point
    reports   crash reports, dead letters and restarts as log records
    node      `Node`: one incarnation, from its root supervisor to its exit code

A node does not know which world it runs in: `aspen.boot` gives it the real one, `aspen.sim` a virtual one.
"""

from aspen.node.config import NodeConfig, read_config
from aspen.node.loading import load_application, load_object
from aspen.node.node import Node, Planned, storage_failed

__all__ = ["Node", "NodeConfig", "Planned", "load_application", "load_object", "read_config", "storage_failed"]
