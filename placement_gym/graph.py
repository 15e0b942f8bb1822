"""OpGraph: the ops of a neural network, the tensors between them, a checked DAG."""

from __future__ import annotations

import operator
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike

from placement_gym.arrays import BoolArray, FloatArray, IntArray, filled, read_only
from placement_gym.errors import InvalidGraph, PlacementGymWarning, unread_names
from placement_gym.op_kernel import Kernels, Tensor

# What `from_networkx` reads, with what stands for a missing one (None: derived from the edges).
OP_ATTRIBUTES: Mapping[str, Any] = {
    "kind": "op", "dtype": "float32", "flops": 0.0, "traffic_bytes": None, "parameter_bytes": 0.0,
    "output_bytes": None, "is_backward": False, "colocation": -1,
}  # fmt: skip
EDGE_ATTRIBUTES = ("bytes", "tensor", "index")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OpGraph:
    """A directed acyclic graph of ops; edge e carries a tensor from `edge_src[e]` to `edge_dst[e]`.

    Ops are axis 0 of every `op_*` array. The order of the edges is kept: the simulator breaks ties by it.
    Edges that carry the same tensor (one output read by several ops) share `edge_tensor`; where the caller
    does not say, edges out of one op with equal bytes carry the same tensor.

    Attributes:
        op_names: One name per op, unique.
        op_kinds: What the op does ("matmul", "relu", ...).
        op_dtypes: Number format of the op's arithmetic ("float32", ...), for roofline costs.
        op_flops: float64 [n_ops], floating point operations.
        op_traffic_bytes: float64 [n_ops], bytes read and written by the op.
        op_parameter_bytes: float64 [n_ops], bytes of the parameters that the op reads.
        op_output_bytes: float64 [n_ops], bytes of all outputs of the op.
        op_is_backward: bool [n_ops], whether the op belongs to the backward pass.
        op_colocation: int32 [n_ops], ops of equal group >= 0 share a device; -1 is free.
        edge_src: int32 [n_edges].
        edge_dst: int32 [n_edges].
        edge_bytes: float64 [n_edges].
        edge_tensor: int32 [n_edges], tensors numbered by their first edge.
        kernels: What the ops compute, where the graph can be run; never saved, and no part of a fingerprint.
        out_start: int32 [n_ops + 1], `out_edges[out_start[i]:out_start[i + 1]]` leave op i.
        out_edges: int32 [n_edges], edge numbers in ascending order per op.
        in_start: int32 [n_ops + 1], as `out_start`, for the edges that enter an op.
        in_edges: int32 [n_edges].
        order: int32 [n_ops], a topological order (smallest op number first).

    Raises:
        InvalidGraph: On a cycle (named), an edge to nowhere, a negative or NaN number, or unequal lengths.
    """

    op_names: tuple[str, ...]
    op_kinds: tuple[str, ...]
    op_dtypes: tuple[str, ...]
    op_flops: FloatArray
    op_traffic_bytes: FloatArray
    op_parameter_bytes: FloatArray
    op_output_bytes: FloatArray
    op_is_backward: BoolArray
    op_colocation: IntArray
    edge_src: IntArray
    edge_dst: IntArray
    edge_bytes: FloatArray
    edge_tensor: IntArray
    kernels: Kernels | None = field(default=None, repr=False)
    out_start: IntArray = field(init=False)
    out_edges: IntArray = field(init=False)
    in_start: IntArray = field(init=False)
    in_edges: IntArray = field(init=False)
    order: IntArray = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.op_names)
        if n == 0:
            raise InvalidGraph("the graph has no ops; expected at least one")
        if len(set(self.op_names)) != n:
            seen: set[str] = set()
            twice = next(name for name in self.op_names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise InvalidGraph(f"op name {twice!r} appears twice; expected unique names")
        for name in ("op_kinds", "op_dtypes"):
            if len(getattr(self, name)) != n:
                raise InvalidGraph(f"{name} has {len(getattr(self, name))} entries; expected {n}, one per op")
        for name in ("op_names", "op_kinds", "op_dtypes"):
            for text in getattr(self, name):
                if not isinstance(text, str):
                    raise InvalidGraph(f"{name} holds {text!r}; expected a text")
        # Outputs and traffic may follow from what comes before them, so that they never hide its fault.
        self._set_checked("edge_bytes", np.float64, len(self.edge_src), "edge")
        for name in ("op_flops", "op_parameter_bytes", "op_output_bytes", "op_traffic_bytes"):
            self._set_checked(name, np.float64, n, "op")
        for name, dtype in (("op_is_backward", np.bool_), ("op_colocation", np.int32)):
            self._set_checked(name, dtype, n, "op")
        for name in ("edge_src", "edge_dst", "edge_tensor"):
            self._set_checked(name, np.int32, len(self.edge_src), "edge")
        self._check_edges()
        for prefix, end in (("out", self.edge_src), ("in", self.edge_dst)):
            start = np.concatenate([[0], np.cumsum(np.bincount(end, minlength=n))])
            object.__setattr__(self, f"{prefix}_start", read_only(start, np.int32))
            object.__setattr__(self, f"{prefix}_edges", read_only(np.argsort(end, kind="stable"), np.int32))
        object.__setattr__(self, "order", read_only(self._topological_order(), np.int32))
        if self.kernels is not None:
            self._check_kernels(self.kernels)

    def __repr__(self) -> str:
        kinds = Counter(self.op_kinds).most_common()
        named = ", ".join(f"{count} {kind[:20]!r}" for kind, count in kinds[:3])
        return (
            f"OpGraph: {self.n_ops} ops ({named}{', ...' if len(kinds) > 3 else ''}) and {self.n_edges} edges\n"
            f"  arithmetic: {self.op_flops.sum():.4g} FLOP; traffic: {self.op_traffic_bytes.sum():.4g} bytes\n"
            f"  parameters: {self.op_parameter_bytes.sum():.4g} bytes; "
            f"outputs: {self.op_output_bytes.sum():.4g} bytes; edges: {self.edge_bytes.sum():.4g} bytes\n"
            f"  {int(self.op_is_backward.sum())} backward ops; {int((self.op_colocation >= 0).sum())} colocated ops"
            f"{'' if self.kernels is None else '; with kernels'}"
        )

    def _set_checked(self, name: str, dtype: Any, length: int, per: str) -> None:  # noqa: ANN401
        array = read_only(getattr(self, name), dtype)
        if array.shape != (length,):
            raise InvalidGraph(f"{name} has shape {array.shape}; expected ({length},), one per {per}")
        if dtype is np.float64:
            wrong = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
            if wrong.size:
                i = int(wrong[0])
                where = f"op {self.op_names[i]!r}" if per == "op" else f"edge {i}"
                raise InvalidGraph(f"{name} of {where} is {array[i]}; expected a finite number >= 0")
        elif not np.array_equal(array, getattr(self, name)):
            raise InvalidGraph(f"{name} holds numbers that are no {np.dtype(dtype)}: {getattr(self, name)}"[:200])
        object.__setattr__(self, name, array)

    def _check_edges(self) -> None:
        n = self.n_ops
        for name in ("edge_src", "edge_dst"):
            ends = getattr(self, name)
            wrong = np.flatnonzero((ends < 0) | (ends >= n))
            if wrong.size:
                e = int(wrong[0])
                raise InvalidGraph(f"{name}[{e}] is {ends[e]}; expected an op number in 0..{n - 1}")
        loops = np.flatnonzero(self.edge_src == self.edge_dst)
        if loops.size:
            op = self.op_names[int(self.edge_src[loops[0]])]
            raise InvalidGraph(f"the graph is cyclic: op {op!r} has an edge to itself")
        if len(self.edge_tensor) and not (0 <= self.edge_tensor.min() and self.edge_tensor.max() < self.n_edges):
            raise InvalidGraph(f"edge_tensor holds numbers outside 0..{self.n_edges - 1}")
        owner: dict[int, tuple[int, float]] = {}
        for e, tensor in enumerate(self.edge_tensor.tolist()):
            tensor_is = (int(self.edge_src[e]), float(self.edge_bytes[e]))
            if owner.setdefault(tensor, tensor_is) != tensor_is:
                raise InvalidGraph(
                    f"edge {e} carries tensor {tensor} with (op, bytes) {tensor_is}; expected {owner[tensor]}"
                )

    def _check_kernels(self, kernels: Kernels) -> None:
        if len(kernels.op_kernels) != self.n_ops:
            raise InvalidGraph(f"kernels has {len(kernels.op_kernels)} entries; expected {self.n_ops}, one per op")
        number: dict[Tensor, int] = {}
        for i, kernel in enumerate(kernels.op_kernels):
            edges = self.in_edges[self.in_start[i] : self.in_start[i + 1]]
            sources = [(int(self.edge_src[e]), int(self.edge_tensor[e])) for e in edges]
            reads = [(t[0], number.setdefault(t, int(n))) for t, (_, n) in zip(kernel.tensors, sources, strict=False)]
            if len(kernel.tensors) != len(sources) or reads != sources:
                raise InvalidGraph(
                    f"op {self.op_names[i]!r} reads the tensors (op, output, region) {list(kernel.tensors)[:6]}, "
                    f"but its edges come, in this order, from the ops {[s[0] for s in sources][:6]}, or one tensor has "
                    "two numbers in edge_tensor"
                )

    def _topological_order(self) -> list[int]:
        import heapq

        missing = np.diff(self.in_start).tolist()
        ready = [i for i in range(self.n_ops) if missing[i] == 0]
        heads, start, edges = self.edge_dst.tolist(), self.out_start.tolist(), self.out_edges.tolist()
        order: list[int] = []
        while ready:
            op = heapq.heappop(ready)
            order.append(op)
            for e in edges[start[op] : start[op + 1]]:
                missing[heads[e]] -= 1
                if missing[heads[e]] == 0:
                    heapq.heappush(ready, heads[e])
        if len(order) < self.n_ops:
            left = {i for i in range(self.n_ops) if missing[i] > 0}
            tails = zip(self.edge_src.tolist(), heads, strict=True)
            cycle = nx.find_cycle(nx.DiGraph([(a, b) for a, b in tails if a in left and b in left]))
            names = " -> ".join(repr(self.op_names[a]) for a, _ in [*cycle[:6], cycle[0]])
            raise InvalidGraph(f"the graph is cyclic: {names}{' ...' if len(cycle) > 6 else ''}; expected a DAG")
        return order

    @property
    def n_ops(self) -> int:
        """Number of ops."""
        return len(self.op_names)

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return len(self.edge_src)

    @classmethod
    def build(
        cls,
        op_names: Sequence[str],
        edges: Sequence[tuple[int, int, float]],
        *,
        kinds: Sequence[str] | None = None,
        dtypes: Sequence[str] | str = "float32",
        flops: ArrayLike = 0.0,
        traffic_bytes: ArrayLike | None = None,
        parameter_bytes: ArrayLike = 0.0,
        output_bytes: ArrayLike | None = None,
        is_backward: ArrayLike = False,
        colocation: ArrayLike = -1,
        edge_tensor: ArrayLike | None = None,
        kernels: Kernels | None = None,
    ) -> OpGraph:
        """A graph from plain lists; scalars hold for every op.

        Args:
            op_names: One name per op.
            edges: (source op, destination op, bytes), in the order that ties are broken by.
            kinds: One kind per op; "op" where not given.
            dtypes: One dtype for all ops or one per op.
            flops: Per op.
            traffic_bytes: Per op; parameter + input + output bytes where not given (None, for all ops or in a list).
            parameter_bytes: Per op.
            output_bytes: Per op; the sum of its distinct tensors where not given (as above).
            is_backward: Per op.
            colocation: Per op, -1 for none.
            edge_tensor: Any integer per edge; equal numbers are one tensor. (op, bytes) where not given (as above).
            kernels: What the ops compute.

        Raises:
            InvalidGraph: As the class.
        """
        n = len(op_names)
        try:
            src = np.array([operator.index(e[0]) for e in edges], dtype=np.int64)
            dst = np.array([operator.index(e[1]) for e in edges], dtype=np.int64)
        except (TypeError, OverflowError) as error:
            raise InvalidGraph(f"the end of an edge is no op number: {error}") from error
        size = np.array([e[2] for e in edges], dtype=np.float64)
        keys: list[Any] = list(zip(src.tolist(), size.tolist(), strict=True))
        if edge_tensor is not None:
            told = np.asarray(edge_tensor).tolist()
            if len(told) != len(keys):
                raise InvalidGraph(f"edge_tensor has {len(told)} entries; expected {len(keys)}, one per edge")
            keys = [key if one is None else one for one, key in zip(told, keys, strict=True)]
        number: dict[Any, int] = {}
        tensor = np.array([number.setdefault(k, len(number)) for k in keys], dtype=np.int64)
        inside = bool(np.all((src >= 0) & (src < n) & (dst >= 0) & (dst < n)))
        parameters = np.broadcast_to(np.asarray(parameter_bytes, dtype=np.float64), n)
        first = np.unique(tensor, return_index=True)[1]
        inputs, tensors = np.zeros(n), np.zeros(n)
        if inside and len(src):
            inputs += np.bincount(dst, size, minlength=n)
            tensors += np.bincount(src[first], size[first], minlength=n)
        outputs = filled(output_bytes, tensors)
        traffic = filled(traffic_bytes, parameters + outputs + inputs)
        return cls(
            op_names=tuple(op_names),
            op_kinds=tuple(kinds) if kinds is not None else ("op",) * n,
            op_dtypes=(dtypes,) * n if isinstance(dtypes, str) else tuple(dtypes),
            op_flops=np.broadcast_to(np.asarray(flops, dtype=np.float64), n),
            op_traffic_bytes=traffic,
            op_parameter_bytes=parameters,
            op_output_bytes=outputs,
            op_is_backward=np.broadcast_to(np.asarray(is_backward, dtype=np.bool_), n),
            op_colocation=np.broadcast_to(np.asarray(colocation), n),
            edge_src=src.astype(np.int32),
            edge_dst=dst.astype(np.int32),
            edge_bytes=size,
            edge_tensor=tensor.astype(np.int32),
            kernels=kernels,
        )

    @classmethod
    def from_networkx(cls, graph: nx.DiGraph[Any]) -> OpGraph:
        """A graph from networkx: op attributes as in `build` (singular), edge attributes `bytes`, `tensor`, `index`.

        An op or edge without an attribute takes the default of `build`; edges are ordered by `index` where they have
        one. Attributes of other names are not read, which a `PlacementGymWarning` says.

        Raises:
            InvalidGraph: As the class; also for an undirected graph, an edge without `bytes`, two nodes that are
                equal as text (1 and "1"), an `index` on some edges only, or a value of a wrong type.
        """
        if not graph.is_directed():
            raise InvalidGraph(f"the graph is an undirected {type(graph).__name__}; expected a networkx.DiGraph")
        nodes, data = dict(graph.nodes(data=True)), list(graph.edges(data=True))
        number = {node: i for i, node in enumerate(nodes)}
        named: dict[str, Any] = {}
        for node in nodes:
            if named.setdefault(str(node), node) is not node:
                raise InvalidGraph(f"the nodes {named[str(node)]!r} and {node!r} are both named {str(node)!r}")
        for what, owners, known in (
            ("op", list(nodes.values()), tuple(OP_ATTRIBUTES)),
            ("edge", [d for _, _, d in data], EDGE_ATTRIBUTES),
        ):
            unread = {str(key) for owner in owners for key in owner} - set(known)
            if unread:
                warnings.warn(unread_names(f"{what} attributes", unread, known), PlacementGymWarning, stacklevel=2)
        indexed = sum("index" in d for _, _, d in data)
        for a, b, d in data:
            if "bytes" not in d or (indexed and "index" not in d):
                missing = "index" if "bytes" in d else "bytes"
                raise InvalidGraph(f"edge {a!r} -> {b!r} has no attribute {missing!r}; it has {sorted(map(str, d))}")
        for node, attributes in nodes.items():
            if attributes.get("is_backward", False) not in (False, True):
                raise InvalidGraph(f"is_backward of op {node!r} is {attributes['is_backward']!r}; expected a bool")
        column = {key: [d.get(key, default) for d in nodes.values()] for key, default in OP_ATTRIBUTES.items()}
        try:
            if indexed:
                data.sort(key=lambda edge: edge[2]["index"])
            return cls.build(
                list(named),
                [(number[a], number[b], d["bytes"]) for a, b, d in data],
                kinds=column.pop("kind"),
                dtypes=column.pop("dtype"),
                edge_tensor=np.array([d.get("tensor") for _, _, d in data], dtype=object),
                **column,  # type: ignore[arg-type]
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidGraph(f"an attribute of the networkx graph has a value of a wrong type: {error}") from error

    def to_networkx(self) -> nx.MultiDiGraph[str]:
        """The same graph as a networkx MultiDiGraph (two ops may be joined by several tensors)."""
        graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        numbers = {key: getattr(self, f"op_{key}").tolist() for key in OP_ATTRIBUTES if key not in ("kind", "dtype")}
        columns: dict[str, Sequence[Any]] = {"kind": self.op_kinds, "dtype": self.op_dtypes, **numbers}
        for i, name in enumerate(self.op_names):
            graph.add_node(name, **{key: column[i] for key, column in columns.items()})
        for e in range(self.n_edges):
            graph.add_edge(
                self.op_names[self.edge_src[e]],
                self.op_names[self.edge_dst[e]],
                bytes=float(self.edge_bytes[e]),
                tensor=int(self.edge_tensor[e]),
                index=e,
            )
        return graph
