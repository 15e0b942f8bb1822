"""Plan: how every op of a program is cut into kernel calls, chosen so that few bytes move."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from placement_gym.arrays import FloatArray
from placement_gym.errors import InvalidProgram, unknown_name
from placement_gym.programs.elimination import minimise
from placement_gym.programs.movement import ESTIMATES, Estimate, distinct_inputs, own_bytes, pair_bytes
from placement_gym.programs.op import TensorOp
from placement_gym.programs.program import TensorProgram
from placement_gym.programs.split import Split, candidates

# The choice is exact where no table of the elimination has more entries.
MAX_ENTRIES = 2_000_000


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OpSplits:
    """How every op of a program is cut.

    Attributes:
        program: The program.
        op_split: One split per op; sources are not cut.
        estimate: Which bytes `moved_bytes` counts.
        optimal: Whether it is proven that no choice among `split.candidates` moves fewer bytes.

    Raises:
        InvalidProgram: Splits that do not fit the program.
    """

    program: TensorProgram
    op_split: tuple[Split, ...]
    estimate: Estimate = "scattered"
    optimal: bool = False

    def __post_init__(self) -> None:
        if self.estimate not in ESTIMATES:
            raise InvalidProgram(unknown_name("estimate", self.estimate, ESTIMATES))
        if len(self.op_split) != len(self.program.ops):
            raise InvalidProgram(
                f"plan for {self.program.name}: {len(self.op_split)} splits; "
                f"expected {len(self.program.ops)}, one per op"
            )
        for op, split in zip(self.program.ops, self.op_split, strict=True):
            split.check(op)

    def __repr__(self) -> str:
        """At most five lines, whatever the size."""
        blocks = [s.n_blocks for op, s in zip(self.program.ops, self.op_split, strict=True) if not op.is_source]
        return (
            f"OpSplits of {self.program.name[:60]!r}: {len(blocks)} ops in {sum(blocks)} blocks\n"
            f"  {self.moved_bytes:.6g} bytes move ({self.estimate}); {'' if self.optimal else 'not '}proven to be least"
        )

    @classmethod
    def of(
        cls,
        program: TensorProgram,
        given: Mapping[str, Mapping[str, int]] | None = None,
        *,
        n: int = 4,
        estimate: Estimate = "scattered",
    ) -> "OpSplits":
        """The plan that moves the fewest bytes, every op being cut into n blocks or into as many as it can be.

        The bytes are summed over the pairs of a producer and a consumer and over the joins of partial results, so the
        smallest sum is found by elimination; where that would need large tables, by a search (`optimal` tells).

        Args:
            program: The program.
            given: Splits made by hand, {op name: {label: blocks}}, the label that numbers blocks slowest first; an op
                that is given an empty one stays whole.
            n: Blocks per op, a power of two.
            estimate: Which bytes count: "aligned" takes block j of every op to sit on device j, "scattered" takes
                every kernel call to have a device of its own.

        Raises:
            InvalidProgram: A split that does not fit its op, an unknown op, label or estimate, or n.
        """
        by_hand = _by_hand(program, given or {})
        if estimate not in ESTIMATES:
            raise InvalidProgram(unknown_name("estimate", estimate, ESTIMATES))
        tables = _Tables(estimate)
        options = tables.options(program, n, by_hand)
        own, pairs = tables.costs(program, options)
        found, optimal = minimise(own, pairs, max_entries=MAX_ENTRIES)
        splits = tuple(splits[choice] for splits, choice in zip(options, found, strict=True))
        return cls(program, splits, estimate, optimal)

    @property
    def moved_bytes(self) -> float:
        """Bytes that move, by the plan's estimate.

        A region that several ops read is counted for each of them.
        """
        own, pairs = _Tables(self.estimate).costs(self.program, [[split] for split in self.op_split])
        return sum(float(table.sum()) for table in (*own, *pairs.values()))


def _by_hand(program: TensorProgram, given: Mapping[str, Mapping[str, int]]) -> dict[int, Split]:
    number = {op.name: i for i, op in enumerate(program.ops)}
    found: dict[int, Split] = {}
    for name, label_blocks in given.items():
        if name not in number:
            raise InvalidProgram(f"plan for {program.name}: {unknown_name('op', name, number)}")
        op = program.ops[number[name]]
        if op.is_source:
            raise InvalidProgram(f"plan for {program.name}: {name!r} is a {op.kind}, which is not cut; its readers are")
        found[number[name]] = Split(tuple(label_blocks.items()))
        found[number[name]].check(op)
    return found


class _Tables:
    """Tables of moved bytes, made once for ops that are alike: those of identical layers."""

    def __init__(self, estimate: Estimate) -> None:
        self.estimate = estimate
        self._options: dict[object, list[Split]] = {}
        self._own: dict[object, FloatArray] = {}
        self._pairs: dict[object, FloatArray] = {}
        self._numbers: dict[object, int] = {}

    def options(self, program: TensorProgram, n: int, by_hand: Mapping[int, Split]) -> list[list[Split]]:
        """The splits that each op may have."""
        options = []
        for i, op in enumerate(program.ops):
            form = _form(op)
            if form not in self._options:
                self._options[form] = candidates(op, n)
            options.append([by_hand[i]] if i in by_hand else self._options[form])
        return options

    def costs(
        self, program: TensorProgram, options: Sequence[Sequence[Split]]
    ) -> tuple[list[FloatArray], dict[tuple[int, int], FloatArray]]:
        """Bytes by the split of one op, and by those of producer and consumer."""
        keys = [
            self._numbers.setdefault((_form(op), tuple(splits)), len(self._numbers))
            for op, splits in zip(program.ops, options, strict=True)
        ]
        own: list[FloatArray] = []
        pairs: dict[tuple[int, int], FloatArray] = {}
        for c, op in enumerate(program.ops):
            dtypes = tuple(program.ops[i].dtype for i in op.inputs)
            alike = tuple(op.inputs.index(i) for i in op.inputs)
            own_key = (keys[c], dtypes, alike)
            if own_key not in self._own:
                self._own[own_key] = own_bytes(op, options[c], dtypes, self.estimate)
            own.append(self._own[own_key])
            for k in distinct_inputs(op):
                p = op.inputs[k]
                if program.ops[p].is_source:
                    continue
                key = (keys[p], keys[c], k)
                if key not in self._pairs:
                    producer = program.ops[p]
                    self._pairs[key] = pair_bytes(producer, options[p], op, options[c], k, self.estimate)
                pairs[p, c] = pairs[p, c] + self._pairs[key] if (p, c) in pairs else self._pairs[key]
        return own, pairs


def _form(op: TensorOp) -> tuple[object, ...]:
    """What decides how an op can be cut: equal for the same op of identical layers."""
    sizes = tuple(op.label_sizes[label] for label in op.all_labels)
    return op.function, op.input_labels, op.labels, sizes, op.whole, op.options, op.dtype
