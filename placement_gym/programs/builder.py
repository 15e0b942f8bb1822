"""ProgramBuilder: writes a TensorProgram op by op."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from placement_gym.errors import InvalidProgram, unknown_name
from placement_gym.op_kernel import Option, Shape
from placement_gym.programs.functions import FUNCTIONS
from placement_gym.programs.op import Labels, TensorOp
from placement_gym.programs.program import TensorProgram, parse_labels

Tensor = int


class ProgramBuilder:
    """Collects ops; a tensor is known by the number of the op that makes it.

    Args:
        name: Of the program.
        dtype: Of every tensor for which nothing else is said.
    """

    def __init__(self, name: str, dtype: str = "float32") -> None:
        self.name, self.dtype = name, dtype
        self.ops: list[TensorOp] = []
        self._scopes: list[str] = []
        self._names: dict[str, int] = {}

    @classmethod
    def extending(cls, program: TensorProgram) -> "ProgramBuilder":
        """A builder that holds the ops of a program already; their numbers stay."""
        builder = cls(program.name, program.ops[0].dtype)
        builder.ops = list(program.ops)
        builder._names = {op.name: 1 for op in program.ops}
        return builder

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Ops made inside have names "<name>.<...>"; scopes nest."""
        self._scopes.append(name)
        yield
        self._scopes.pop()

    def _name(self, wanted: str) -> str:
        name = ".".join([*self._scopes, wanted])
        self._names[name] = self._names.get(name, 0) + 1
        if self._names[name] == 1:
            return name
        return self._name(f"{wanted}_{self._names[name] - 1}")

    def _source(self, op: TensorOp) -> Tensor:
        self.ops.append(op)
        return len(self.ops) - 1

    def parameter(self, name: str, shape: Sequence[int]) -> Tensor:
        """A tensor that training changes."""
        labels = tuple(f"axis{i}" for i in range(len(shape)))
        sizes = dict(zip(labels, shape, strict=True))
        return self._source(TensorOp(self._name(name), "parameter", "", (), (), labels, sizes, self.dtype))

    def input(self, name: str, shape: Sequence[int], *, dtype: str | None = None, n_values: int = 0) -> Tensor:
        """A tensor that comes from outside; ids are whole numbers in 0..n_values - 1."""
        labels = tuple(f"axis{i}" for i in range(len(shape)))
        sizes = dict(zip(labels, shape, strict=True))
        return self._source(
            TensorOp(self._name(name), "input", "", (), (), labels, sizes, dtype or self.dtype, n_values=n_values)
        )

    def op(
        self,
        function: str,
        labels: str | tuple[Sequence[Labels], Labels],
        *inputs: Tensor,
        name: str | None = None,
        whole: str | Sequence[str] = "",
        sizes: Mapping[str, int] | None = None,
        options: Mapping[str, Option] | None = None,
        is_backward: bool = False,
    ) -> Tensor:
        """An op that computes.

        Args:
            function: A name in `FUNCTIONS`.
            labels: Of inputs and output ("bsh,hnd->bsnd"; `parse_labels`), or both as they are.
            inputs: The tensors read.
            name: The function's name where not given; made unique by a number.
            whole: Labels that are never split.
            sizes: Of labels that no input has.
            options: Further arguments of the function.
            is_backward: Whether it belongs to the backward pass.

        Raises:
            InvalidProgram: Unknown function, or labels that do not fit the inputs' shapes.
        """
        if function not in FUNCTIONS:
            raise InvalidProgram(f"{self.name}: " + unknown_name("function", function, FUNCTIONS))
        input_labels, output_labels = parse_labels(labels) if isinstance(labels, str) else labels
        found = dict(sizes or {})
        for tensor, axes in zip(inputs, input_labels, strict=False):
            shape = self.shape(tensor)
            if len(axes) != len(shape):
                raise InvalidProgram(f"{self.name}: {function} {labels!r}: input of shape {shape} has labels {axes}")
            for label, size in zip(axes, shape, strict=True):
                if found.setdefault(label, size) != size:
                    raise InvalidProgram(
                        f"{self.name}: {function} {labels!r}: label {label!r} has sizes {found[label]} and {size}"
                    )
        missing = [label for label in output_labels if label not in found]
        if missing or len(input_labels) != len(inputs):
            raise InvalidProgram(
                f"{self.name}: {function} {labels!r}: {len(inputs)} inputs; labels of unknown size: {missing}"
            )
        dtypes = [self.ops[tensor].dtype for tensor in inputs]
        self.ops.append(
            TensorOp(
                self._name(name or function),
                FUNCTIONS[function].kind,
                function,
                tuple(inputs),
                tuple(input_labels),
                output_labels,
                found,
                next((dtype for dtype in dtypes if not dtype.startswith("int")), self.dtype),
                frozenset(whole),
                tuple(sorted((options or {}).items())),
                is_backward,
            )
        )
        return len(self.ops) - 1

    def shape(self, tensor: Tensor) -> Shape:
        """Shape of a tensor made earlier.

        Raises:
            InvalidProgram: There is no such tensor.
        """
        if not 0 <= tensor < len(self.ops):
            raise InvalidProgram(f"{self.name}: there is no tensor {tensor}; expected 0..{len(self.ops) - 1}")
        return self.ops[tensor].shape

    def build(self, *outputs: Tensor) -> TensorProgram:
        """The program, checked.

        Raises:
            InvalidProgram: As `TensorProgram`.
        """
        return TensorProgram(self.name, tuple(self.ops), tuple(outputs))
