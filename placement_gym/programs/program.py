"""TensorProgram: a neural network as einsum-labelled tensor ops, to be differentiated, split and run."""

from collections import Counter
from dataclasses import dataclass, replace

from placement_gym.errors import InvalidProgram, unknown_name
from placement_gym.op_kernel import DTYPE_BYTES, Source
from placement_gym.programs.checks import wrong_labels
from placement_gym.programs.functions import FUNCTIONS, KINDS
from placement_gym.programs.op import Labels, TensorOp


def parse_labels(text: str) -> tuple[tuple[Labels, ...], Labels]:
    """Labels of inputs and output: "bsh,hnd->bsnd", or with blanks where labels are words: "b s h, h n d -> b s n d".

    Raises:
        InvalidProgram: There is no arrow.
    """
    inputs, arrow, output = text.partition("->")
    if not arrow:
        raise InvalidProgram(f"labels {text!r} have no '->'; expected such as 'bsh,hnd->bsnd'")

    parts = [part.strip() for part in (*inputs.split(","), output)]
    words = any(" " in part for part in parts)
    labels = [tuple(part.split()) if words else tuple(part) for part in parts]
    return tuple(labels[:-1]) if inputs.strip() else (), labels[-1]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TensorProgram:
    """A directed acyclic program of tensor ops, in an order in which they can run.

    Attributes:
        name: For tables.
        ops: The ops; an op reads only earlier ones.
        outputs: Numbers of the ops whose tensors are the program's results.

    Raises:
        InvalidProgram: A name twice, an op that reads a later one, a function or kind that is not known, labels that
            do not fit the shapes, missing options, no output.
    """

    name: str
    ops: tuple[TensorOp, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        if len({op.name for op in self.ops}) != len(self.ops):
            names = [op.name for op in self.ops]
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidProgram(f"{self.name}: op name {twice!r} appears twice; expected unique names")
        for number, op in enumerate(self.ops):
            self._check(number, op)
        if not self.outputs or not all(0 <= o < len(self.ops) for o in self.outputs):
            raise InvalidProgram(f"{self.name}: outputs are {self.outputs}; expected op numbers, at least one")

    def __repr__(self) -> str:
        """At most five lines, whatever the size."""
        kinds = Counter(op.kind for op in self.ops).most_common()
        return (
            f"TensorProgram {self.name[:60]!r}: {len(self.ops)} ops\n"
            f"  kinds: {', '.join(f'{count} {kind}' for kind, count in kinds)}\n"
            f"  arithmetic: {self.flops:.4g} FLOP; parameters: {self.parameter_bytes:.4g} bytes\n"
            f"  {sum(op.is_backward for op in self.ops)} backward ops; {len(self.outputs)} outputs"
        )

    def _check(self, number: int, op: TensorOp) -> None:
        def wrong(reason: str) -> InvalidProgram:
            return InvalidProgram(f"{self.name}: op {op.name!r}: {reason}")

        if op.kind not in KINDS:
            raise wrong(unknown_name("kind", op.kind, KINDS))
        if op.dtype not in DTYPE_BYTES:
            raise wrong(unknown_name("dtype", op.dtype, DTYPE_BYTES))
        if len(set(op.labels)) != len(op.labels):
            raise wrong(f"the output has a label twice: {op.labels}")
        for label in (*op.all_labels, *op.whole):
            if not op.label_sizes.get(label, 0) >= 1:
                raise wrong(f"label {label!r} has size {op.label_sizes.get(label)}; expected >= 1")
        if op.is_source:
            if op.inputs or op.function:
                raise wrong("a source reads nothing and computes nothing")
            return
        if op.function not in FUNCTIONS:
            raise wrong(unknown_name("function", op.function, FUNCTIONS))
        function = FUNCTIONS[op.function]
        if op.kind != function.kind:
            raise wrong(f"kind is {op.kind!r}; {op.function!r} is a {function.kind}")
        if len(op.inputs) != function.n_inputs or len(op.input_labels) != function.n_inputs:
            raise wrong(f"{len(op.inputs)} inputs; {op.function!r} takes {function.n_inputs}")
        if tuple(name for name, _ in op.options) != tuple(sorted(function.options)):
            raise wrong(f"options {[name for name, _ in op.options]}; {op.function!r} needs {list(function.options)}")
        for source, labels in zip(op.inputs, op.input_labels, strict=True):
            if not 0 <= source < number:
                raise wrong(f"it reads op {source}; expected an earlier one, 0..{number - 1}")
            shape = tuple(op.label_sizes[label] for label in labels)
            if shape != self.ops[source].shape or len(set(labels)) != len(labels):
                raise wrong(
                    f"input {self.ops[source].name!r} has shape {self.ops[source].shape}; "
                    f"labels {labels} say {shape}, each label once"
                )
        reason = wrong_labels(op)
        if reason:
            raise wrong(reason)

    @property
    def sources(self) -> tuple[int, ...]:
        """Numbers of parameters and inputs."""
        return tuple(i for i, op in enumerate(self.ops) if op.is_source)

    @property
    def named_sources(self) -> dict[str, Source]:
        """What the sources are, by name, in order."""
        return {
            op.name: Source("parameter" if op.kind == "parameter" else "input", op.shape, op.dtype, op.n_values)
            for op in (self.ops[i] for i in self.sources)
        }

    @property
    def flops(self) -> float:
        """Floating point operations of the whole program."""
        return sum(op.flops for op in self.ops)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(op.n_bytes for op in self.ops if op.kind == "parameter")

    def cast(self, dtype: str) -> "TensorProgram":
        """The same program with another number format; whole numbers stay.

        Raises:
            InvalidProgram: The dtype is no number format of real numbers.
        """
        real = [name for name in DTYPE_BYTES if "float" in name]
        if dtype not in real:
            raise InvalidProgram(f"{self.name}: " + unknown_name("dtype of real numbers", dtype, real))
        ops = (replace(op, dtype=dtype) if op.dtype in real else op for op in self.ops)
        return TensorProgram(self.name, tuple(ops), self.outputs)

    def readers(self) -> list[list[int]]:
        """For each op, the numbers of the ops that read it (once per argument)."""
        readers: list[list[int]] = [[] for _ in self.ops]
        for number, op in enumerate(self.ops):
            for source in op.inputs:
                readers[source].append(number)
        return readers
