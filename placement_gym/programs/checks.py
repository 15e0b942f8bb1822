"""What may be wrong with the labels of an op: what its function could not compute, or not compute in parts."""

from placement_gym.programs.op import TensorOp


def wrong_labels(op: TensorOp) -> str | None:
    """What is wrong with the labels of an op that computes, or None."""
    read = [set(labels) for labels in op.input_labels]
    everywhere = set().union(*read)
    out = set(op.labels)
    if op.function == "einsum":
        alone = sorted(x for x in everywhere if sum(x in labels for labels in read) == 1 and x not in out)
        if alone:
            return f"labels {alone} are in one input and not in the output; sum over them first"
        if out - everywhere:
            return f"labels {sorted(out - everywhere)} of the output are in no input"
    elif op.kind == "elementwise":
        if everywhere - out:
            return f"labels {sorted(everywhere - out)} are not in the output; an elementwise op sums over nothing"
        if out - everywhere and op.function != "expand":
            return f"labels {sorted(out - everywhere)} of the output are in no input"
        if op.function.startswith("rotary"):
            return _wrong_rotary(op)
    elif op.kind == "reduction" and (out - everywhere or out == everywhere):
        return f"a reduction's output has some of its input's labels; got {op.labels} of {op.input_labels[0]}"
    elif op.function.startswith(("conv2d", "max_pool2d")):
        return _wrong_window(op)
    elif op.kind == "gather":
        return _wrong_rows(op)
    return None


def _wrong_rotary(op: TensorOp) -> str | None:
    """The second last label is the pair: of size 2, never split, and no label of the angles."""
    if set(op.input_labels[0]) != set(op.labels):
        return f"the result's labels must be those of what is rotated, {op.input_labels[0]}; got {op.labels}"
    pair = op.labels[-2] if len(op.labels) > 1 else None
    angles = {label for labels in op.input_labels[1:] for label in labels}
    if pair is None or op.label_sizes[pair] != 2 or pair not in op.whole or pair in angles:
        return f"the label before the last must be of size 2, whole, and not in the angles; got {op.labels}"
    return None


def _wrong_window(op: TensorOp) -> str | None:
    """Images are [image, channel, row, column], weights [channel out, channel in, row, column]; rows are not split."""
    tensors = (*op.input_labels, op.labels)
    if any(len(labels) != 4 for labels in tensors):
        return f"images and weights have 4 axes each; got {tensors}"
    # Which tensor is the larger image, the smaller one and the weight (None for pooling).
    order = {
        "conv2d": (0, 2, 1),
        "conv2d_input_gradient": (2, 0, 1),
        "conv2d_weight_gradient": (0, 1, 2),
        "max_pool2d": (0, 1, None),
        "max_pool2d_gradient": (2, 0, None),
    }[op.function]
    larger, smaller = tensors[order[0]], tensors[order[1]]
    options = dict(op.options)
    if order[2] is None:
        taps: tuple[object, ...] = (options["window"],) * 2
        fits = larger[:2] == smaller[:2] and (op.function == "max_pool2d" or tensors[1] == larger)
    else:
        weight = tensors[order[2]]
        taps = tuple(op.label_sizes[label] for label in weight[2:])
        fits = (larger[0], larger[1], weight[0]) == (smaller[0], weight[1], smaller[1])
    if not fits:
        return f"images and channels of {op.function!r} do not meet; got {tensors}"
    split = {label for labels in tensors for label in labels[2:]} - op.whole
    if split:
        return f"labels {sorted(split)} of rows and columns must be whole"
    stride, padding = options["stride"], options["padding"]
    for label, made, tap in zip(larger[2:], smaller[2:], taps, strict=True):
        if not (isinstance(stride, int) and isinstance(padding, int) and isinstance(tap, int) and stride > 0):
            return f"options are {options}; expected whole numbers, stride and window at least 1"
        expected = (op.label_sizes[label] + 2 * padding - tap) // stride + 1
        if op.label_sizes[made] != expected:
            return f"{op.label_sizes[label]} rows or columns give {expected}; got {op.label_sizes[made]} ({made!r})"
    return None


def _wrong_rows(op: TensorOp) -> str | None:
    """The axis that rows are taken from, or put into, is never split: rows have their number in the whole."""
    if op.function.startswith("embedding"):
        table, ids, rows = (*op.input_labels, op.labels)
        if op.function == "embedding_gradient":
            table, ids, rows = rows, table, ids
        if len(table) != 2 or rows != (*ids, table[1]):
            return (
                f"rows must be labelled {(*ids, *table[1:])}, those of the ids and of the table's columns; got {rows}"
            )
        axis = table[0]
    else:
        larger, smaller = op.input_labels[0], op.labels
        if op.function == "select_gradient":
            larger, smaller = smaller, larger
        position, index = dict(op.options)["axis"], dict(op.options)["index"]
        if not (isinstance(position, int) and 0 <= position < len(larger)):
            return f"axis is {position}; expected one of the {len(larger)} of {larger}"
        axis = larger[position]
        if smaller != larger[:position] + larger[position + 1 :]:
            return f"without axis {position}, {larger} leaves no {smaller}"
        if not (isinstance(index, int) and 0 <= index < op.label_sizes[axis]):
            return f"index is {index}; expected 0..{op.label_sizes[axis] - 1}"
    return None if axis in op.whole else f"label {axis!r} must be whole"
