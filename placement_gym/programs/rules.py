"""Rules of differentiation: for each function, the ops that compute the gradient of an argument."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import NamedTuple

from placement_gym.errors import InvalidProgram
from placement_gym.op_kernel import Option
from placement_gym.programs.builder import ProgramBuilder
from placement_gym.programs.op import Labels, TensorOp


class Labelled(NamedTuple):
    """A tensor and an op's labels of its axes. A gradient may lack axes: it has the same values all along them."""

    tensor: int
    labels: Labels


class Writer:
    """Appends the backward ops of one forward op.

    Args:
        builder: The program that they are appended to.
        op: The forward op; the backward ops take over its labels and their sizes.
    """

    def __init__(self, builder: ProgramBuilder, op: TensorOp) -> None:
        self.builder, self.op = builder, op

    def make(
        self,
        function: str,
        reads: Sequence[Labelled],
        labels: Sequence[str],
        options: Mapping[str, Option] | None = None,
    ) -> Labelled:
        """Appends an op.

        Args:
            function: Its name.
            reads: Its arguments.
            labels: Of its result.
            options: Further arguments of the function, by name.
        """
        used = {label for read in reads for label in read.labels} | set(labels)
        tensor = self.builder.op(
            function,
            ([read.labels for read in reads], tuple(labels)),
            *(read.tensor for read in reads),
            name=f"backward.{self.op.name}.{function}",
            whole=[label for label in self.op.whole if label in used],
            sizes={label: self.op.label_sizes[label] for label in labels},
            options=options,
            is_backward=True,
        )
        return Labelled(tensor, tuple(labels))

    def full(self, x: Labelled) -> Labelled:
        """X, repeated along those of the op's labels that it lacks, with axes in the op's order."""
        return x if x.labels == self.op.labels else self.make("expand", [x], self.op.labels)

    def scaled(self, x: Labelled, factor: float) -> Labelled:
        """X times a number."""
        return x if factor == 1 else self.make("affine", [x], x.labels, {"factor": factor, "shift": 0.0})


class Step(Writer):
    """What a rule is given: y is the op's result, dy its gradient, x the argument whose gradient is asked for.

    Args:
        builder: The program that the backward ops are appended to.
        op: The forward op.
        number: The number of the forward op in the program.
        k: Which of the op's arguments is x.
        dy: Gradient of the result; it may lack labels.
    """

    def __init__(self, builder: ProgramBuilder, op: TensorOp, number: int, k: int, dy: Labelled) -> None:
        super().__init__(builder, op)
        self.k, self.dy = k, dy
        self.y = Labelled(number, op.labels)
        self.arguments = [Labelled(*pair) for pair in zip(op.inputs, op.input_labels, strict=True)]
        self.x = self.arguments[k]

    def summed(self, dy: Labelled) -> Labelled:
        """The gradient of x where dy is that of x repeated along the labels it lacks."""
        lost = [label for label in self.op.labels if label not in self.x.labels]
        repeats = prod(self.op.label_sizes[label] for label in lost if label not in dy.labels)
        if set(lost) & set(dy.labels):
            dy = self.make("sum", [dy], [label for label in dy.labels if label in self.x.labels])
        return self.scaled(dy, repeats)

    def product(self, dy: Labelled, other: Labelled) -> Labelled:
        """The product of dy and another tensor, summed over the labels that x lacks."""
        if set(self.op.labels) - set(self.x.labels) - set(dy.labels):
            dy = self.full(dy)
        present = {*dy.labels, *other.labels}
        left = [label for label in self.x.labels if label in present]
        return self.make("einsum" if present - set(left) else "mul", [dy, other], left)


def _einsum(step: Step) -> Labelled:
    """A sum of products is linear in either factor: the same sum with dy in the factor's place."""
    dy = step.full(step.dy)
    reads = [dy, step.arguments[1]] if step.k == 0 else [step.arguments[0], dy]
    return step.make("einsum", reads, step.x.labels)


def _conv2d(step: Step) -> Labelled:
    dy = step.full(step.dy)
    image, weight = step.arguments
    options = dict(step.op.options)
    if step.k == 0:
        return step.make("conv2d_input_gradient", [dy, weight], image.labels, options)
    return step.make("conv2d_weight_gradient", [image, dy], weight.labels, options)


def _of_argument(step: Step) -> Labelled:
    """The function `<name>_gradient` of (dy, x) computes it."""
    return step.make(f"{step.op.function}_gradient", [step.dy, step.x], step.x.labels)


def _of_result(step: Step) -> Labelled:
    """The function `<name>_gradient` of (dy, y) computes it, so that x need not be kept."""
    return step.make(f"{step.op.function}_gradient", [step.dy, step.y], step.x.labels)


def _affine(step: Step) -> Labelled:
    factor = dict(step.op.options)["factor"]
    assert isinstance(factor, (int, float))
    return step.scaled(step.dy, factor)


def _exp(step: Step) -> Labelled:
    return step.product(step.dy, step.y)


def _log(step: Step) -> Labelled:
    return step.make("div", [step.dy, step.x], step.x.labels)


def _square(step: Step) -> Labelled:
    # dy is scaled before the product, as it may be the smaller of the two.
    return step.product(step.scaled(step.dy, 2), step.x)


def _repeated(step: Step) -> Labelled:
    """Of add and expand."""
    return step.summed(step.dy)


def _sub(step: Step) -> Labelled:
    return step.scaled(step.summed(step.dy), 1 if step.k == 0 else -1)


def _mul(step: Step) -> Labelled:
    return step.product(step.dy, step.arguments[1 - step.k])


def _div(step: Step) -> Labelled:
    """Of y = a / b: dy / b for a; -(dy y) / b for b, where what b was repeated along is summed before dividing."""
    b = step.arguments[1]
    if step.k == 0:
        labels = [label for label in step.op.labels if label in (*step.dy.labels, *b.labels)]
        return step.summed(step.make("div", [step.dy, b], labels))
    return step.scaled(step.make("div", [step.product(step.dy, step.y), b], b.labels), -1)


def _rotary(step: Step) -> Labelled:
    """A rotation's transpose is the rotation back."""
    if step.k > 0:
        raise InvalidProgram(
            f"op {step.op.name!r}: the angles of {step.op.function!r} lead to a parameter; no rule for them"
        )
    function = "rotary_inverse" if step.op.function == "rotary" else "rotary"
    return step.make(function, [step.full(step.dy), *step.arguments[1:]], step.op.labels)


def _sum(step: Step) -> Labelled:
    """The same along the labels that were summed over: nothing to compute."""
    return step.dy


def _embedding(step: Step) -> Labelled:
    return step.make("embedding_gradient", [step.arguments[1], step.full(step.dy)], step.x.labels)


def _select(step: Step) -> Labelled:
    return step.make("select_gradient", [step.full(step.dy)], step.x.labels, dict(step.op.options))


def _max_pool2d(step: Step) -> Labelled:
    return step.make("max_pool2d_gradient", [step.full(step.dy), step.x], step.x.labels, dict(step.op.options))


RULES: Mapping[str, Callable[[Step], Labelled]] = {
    "einsum": _einsum,
    "conv2d": _conv2d,
    "affine": _affine,
    "exp": _exp,
    "log": _log,
    "relu": _of_result,
    "gelu": _of_argument,
    "silu": _of_argument,
    "tanh": _of_result,
    "square": _square,
    "rsqrt": _of_result,
    "expand": _repeated,
    "add": _repeated,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "rotary": _rotary,
    "rotary_inverse": _rotary,
    "sum": _sum,
    "embedding": _embedding,
    "select": _select,
    "max_pool2d": _max_pool2d,
}

# A largest value is only ever the shift of a softmax, exp(x - max) / sum, which does not depend on it: its gradient is
# zero, whatever it is taken for.
CONSTANT = frozenset({"max"})
