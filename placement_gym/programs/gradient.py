"""The backward pass of a program, derived from it by rule (reverse accumulation)."""

from placement_gym.errors import InvalidOption, InvalidProgram
from placement_gym.programs.builder import ProgramBuilder
from placement_gym.programs.program import TensorProgram
from placement_gym.programs.rules import CONSTANT, RULES, Labelled, Step, Writer


def training(program: TensorProgram, *, learning_rate: float | None = None) -> TensorProgram:
    """The program and its backward pass.

    The gradient of each output that depends on a parameter is a new input, "gradient.<output>", so that any loss fits.
    Only tensors that lead to a parameter have gradients. The function `max` counts as a constant: it is meant as the
    shift of a softmax, where its gradient cancels.

    Args:
        program: The forward program.
        learning_rate: Of one step of gradient descent; None: no step.

    Returns:
        The forward ops with the same numbers, then the backward ops. The outputs are those of the program, then for
        each parameter, in order, its gradient (shape of the parameter) or, with a learning rate, its new value. One op
        may be the gradient of several parameters: of two that are added.

    Raises:
        InvalidProgram: There is no parameter, or one that leads to no output, or a function without a rule.
        InvalidOption: The learning rate is no positive number.
    """
    if learning_rate is not None and not 0 < learning_rate < float("inf"):
        raise InvalidOption(f"learning_rate is {learning_rate}; expected a positive number or None")
    parameters = [number for number, op in enumerate(program.ops) if op.kind == "parameter"]
    if not parameters:
        raise InvalidProgram(f"{program.name}: there is no parameter to train")
    backward = _Backward(program)
    backward.run()
    made = []
    for number in parameters:
        gradient = backward.gradient(number)
        if learning_rate is not None:
            op = program.ops[number]
            reads = [Labelled(number, op.labels), Labelled(gradient, op.labels)]
            step = Writer(backward.builder, op).make("sgd", reads, op.labels, {"learning_rate": learning_rate})
            gradient = step.tensor
        made.append(gradient)
    return backward.builder.build(*program.outputs, *made)


class _Backward:
    """Gradients so far, from the last op to the first.

    Args:
        program: The forward program.
    """

    def __init__(self, program: TensorProgram) -> None:
        self.program = program
        self.builder = ProgramBuilder.extending(program)
        # For each tensor, the parts of its gradient; the labels are those of the op that makes the tensor.
        self.parts: list[list[Labelled]] = [[] for _ in program.ops]
        self.is_needed: list[bool] = []
        for op in program.ops:
            leads = any(self.is_needed[source] for source in op.inputs) and op.function not in CONSTANT
            self.is_needed.append(op.kind == "parameter" or leads)

    def run(self) -> None:
        """Writes the whole backward pass."""
        for number in dict.fromkeys(self.program.outputs):
            op = self.program.ops[number]
            if self.is_needed[number]:
                gradient = self.builder.input(f"gradient.{op.name}", op.shape, dtype=op.dtype)
                self.parts[number].append(Labelled(gradient, op.labels))
        for number in reversed(range(len(self.program.ops))):
            if self.parts[number]:
                self._differentiate(number)

    def _differentiate(self, number: int) -> None:
        """Writes the gradient of a tensor, now that all its parts are there, and the parts that it gives to others."""
        ops = self.program.ops
        op = ops[number]
        dy = self._joined(number)
        self.parts[number] = [dy]
        for k, source in enumerate(op.inputs):
            if not self.is_needed[source]:
                continue
            if op.function not in RULES:
                raise InvalidProgram(
                    f"{self.program.name}: op {op.name!r}: no rule for {op.function!r}: there are no second derivatives"
                )
            dx = RULES[op.function](Step(self.builder, op, number, k, dy))
            label = dict(zip(op.input_labels[k], ops[source].labels, strict=True))
            self.parts[source].append(Labelled(dx.tensor, tuple(label[x] for x in dx.labels)))

    def _joined(self, number: int) -> Labelled:
        """The sum of the parts of a tensor's gradient."""
        write = Writer(self.builder, self.program.ops[number])
        # What is the same along some axes comes first, to be added while it is small.
        first, *others = sorted(self.parts[number], key=lambda part: len(part.labels))
        for part in others:
            present = {*first.labels, *part.labels}
            first = write.make("add", [part, first], [label for label in write.op.labels if label in present])
        return write.full(first) if write.op.is_source else first

    def gradient(self, number: int) -> int:
        """The gradient of a parameter.

        Raises:
            InvalidProgram: No output depends on it.
        """
        if not self.parts[number]:
            name = self.program.ops[number].name
            raise InvalidProgram(f"{self.program.name}: parameter {name!r} leads to no output; its gradient is zero")
        return self.parts[number][0].tensor
