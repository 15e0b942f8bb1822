"""A human expert's split, read from a file."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from placement_gym.arrays import IntArray
from placement_gym.errors import InfeasiblePlacement, InvalidFile
from placement_gym.objectives import Objective, pays_for_transfers
from placement_gym.problem import Problem
from placement_gym.result import Evaluator, Result
from placement_gym.rule import Rule

PathLike = str | os.PathLike[str]
_FORMAT = 'a split: {"fpgas": [{"nodes": [1, 2, ...]}, ...], "cpus": [{"nodes": [...]}, ...]}'


def expert(
    problem: Problem, *, rule: str | Rule = "physical", path: PathLike, objective: Objective = "max_load"
) -> Result:
    """The split that a human expert wrote down for this problem (the paper's own are of its layer graphs).

    Args:
        problem: The problem.
        rule: Simulator rule of the result's schedule.
        path: The split, see `read_split`.
        objective: What the result is measured by.

    Raises:
        InvalidFile: As `read_split`.
        InvalidOption: An unknown objective.
        InfeasiblePlacement: As `read_split`, or the split breaks support, memory or colocation.
    """
    evaluator = Evaluator("expert", problem, rule, objective=objective)
    return evaluator.result(read_split(path, problem))


def read_split(path: PathLike, problem: Problem) -> IntArray:
    """The placement in a file of "Efficient Algorithms for Device Placement" (its folder human-experts).

    The i-th entry of "fpgas" is the i-th accelerator, the i-th of "cpus" the i-th CPU. A node is the name of an op
    or the number of a layer: number 7 is op "node7"; the backward ops bear the numbers after the last forward
    layer's, in the order of the ops. Ops that are not listed go where their colocation group is.

    Args:
        path: The file.
        problem: What it splits.

    Returns:
        int32 [n_ops], device of each op.

    Raises:
        InvalidFile: The file is missing or malformed, it names an op that the problem does not have or one op
            twice, or it does not say where an op goes.
        InfeasiblePlacement: The file uses more devices than the problem has.
    """
    known = _known_nodes(problem)
    op_device = np.full(problem.n_ops, -1, dtype=np.int32)
    accelerators = pays_for_transfers(problem)
    for field, devices in (("fpgas", np.flatnonzero(accelerators)), ("cpus", np.flatnonzero(~accelerators))):
        for i, nodes in enumerate(_nodes(path, field)):
            if nodes and i >= len(devices):
                raise InfeasiblePlacement(
                    f"{path}: {field}[{i}] holds {len(nodes)} nodes; {problem.name!r} has {len(devices)} such devices"
                )
            for node in nodes:
                if node not in known:
                    raise InvalidFile(f"{path}: {field}[{i}] holds node {node!r}; {problem.name!r} has no such op")
                if op_device[known[node]] >= 0:
                    raise InvalidFile(f"{path}: node {node!r} in {field}[{i}] is listed twice")
                op_device[known[node]] = devices[i]
    return _with_groups(path, problem, op_device)


def _known_nodes(problem: Problem) -> dict[str | int, int]:
    """Op of each name, and of each number of a layer."""
    graph = problem.graph
    known: dict[str | int, int] = {name: op for op, name in enumerate(graph.op_names)}
    numbers = {int(name[4:]): op for op, name in enumerate(graph.op_names) if re.fullmatch(r"node\d+", name)}
    if numbers:
        unnumbered = sorted(set(np.flatnonzero(graph.op_is_backward).tolist()) - set(numbers.values()))
        known.update(enumerate(unnumbered, start=max(numbers) + 1))
    return known | numbers


def _nodes(path: PathLike, field: str) -> list[list[str | int]]:
    """The lists of nodes of one field of the file."""
    try:
        data: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidFile(f"{path}: no such file; expected {_FORMAT}") from error
    except (OSError, ValueError) as error:
        raise InvalidFile(f"{path}: {error}; expected {_FORMAT}") from error
    entries = data.get(field) if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise InvalidFile(f"{path}: field {field!r} is missing or no list; expected {_FORMAT}")
    for i, entry in enumerate(entries):
        nodes = entry.get("nodes") if isinstance(entry, dict) else None
        if not isinstance(nodes, list) or not all(type(node) in (int, str) for node in nodes):
            raise InvalidFile(f"{path}: {field}[{i}] has no list 'nodes' of numbers or names; expected {_FORMAT}")
    return [entry["nodes"] for entry in entries]


def _with_groups(path: PathLike, problem: Problem, op_device: IntArray) -> IntArray:
    """The same with unlisted ops where their colocation group is."""
    groups = problem.graph.op_colocation
    home = {
        int(group): int(device) for group, device in zip(groups, op_device, strict=True) if group >= 0 and device >= 0
    }
    for op in np.flatnonzero(op_device < 0).tolist():
        if int(groups[op]) not in home:
            raise InvalidFile(f"{path}: op {problem.graph.op_names[op]!r} of {problem.name!r} is on no device")
        op_device[op] = home[int(groups[op])]
    return op_device
