"""The instances of the NeurIPS 2020 paper, with what its programs print for them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import placement_gym as pg


@dataclass(frozen=True)
class Published:
    """The folder of the instances, and the reference values by instance."""

    folder: Path
    values: dict[str, Any]

    def problem(self, name: str) -> pg.Problem:
        """An instance."""
        return pg.workloads.read_dnn_partitioning(self.folder / f"{name}.json")
