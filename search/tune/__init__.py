"""Ray: the cluster, the transport of candidates, and what runs on a certain node. The only folder that knows Ray."""

from __future__ import annotations

from .cluster import cluster
from .nodes import check_nodes, on_node
from .transport import RETRIES, run

__all__ = ["RETRIES", "check_nodes", "cluster", "on_node", "run"]
