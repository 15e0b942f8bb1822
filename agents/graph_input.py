"""GraphInput: what networks read of a problem's graph, out of an observation."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from placement_gym.envs.observation import EDGE_FEATURES, OP_FEATURES, Observation, table

# The first columns of the observation's tables. Columns that came after them are not read, so that weights that were
# trained before are good, and the published numbers hold.
OP_INPUTS = OP_FEATURES[: OP_FEATURES.index("output_bytes")]
EDGE_INPUTS = EDGE_FEATURES[: EDGE_FEATURES.index("bytes")]


class GraphInput(NamedTuple):
    """A problem's graph without padding; the arrays are copies.

    Attributes:
        op_features: float32 [n_ops, len(OP_INPUTS)].
        edge_index: int64 [2, n_edges].
        edge_features: float32 [n_edges, len(EDGE_INPUTS)].
    """

    op_features: NDArray[np.float32]
    edge_index: NDArray[np.int64]
    edge_features: NDArray[np.float32]

    @classmethod
    def of(cls, observation: Observation, row: int = 0) -> "GraphInput":
        """The graph of one row of a batch of observations."""
        n, m = int(observation["n_ops"][row, 0]), int(observation["n_edges"][row, 0])
        ops, edges, times = (
            table(key, observation[key][row]) for key in ("op_features", "edge_index", "edge_features")
        )
        return cls(
            ops[:n, : len(OP_INPUTS)].copy(),
            edges[:, :m].copy(),
            times[:m, : len(EDGE_INPUTS)].copy(),
        )
