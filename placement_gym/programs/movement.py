"""Bytes that the cuts of ops move: from producer to consumer, and to join partial results."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from placement_gym.arrays import BoolArray, FloatArray
from placement_gym.op_kernel import DTYPE_BYTES
from placement_gym.programs.op import TensorOp
from placement_gym.programs.split import Bounds, Split

# aligned: block j of every op sits on device j and partial results are joined where the first of them is. Sources are
#     everywhere already.
# scattered: no two kernel calls share a device, so all that a call reads moves, sources included (the bound that
#     EinDecomp minimises, arXiv 2410.02682), and what must be put together moves once more.
Estimate = Literal["aligned", "scattered"]
ESTIMATES: tuple[str, ...] = get_args(Estimate)


def _volume(bounds: Bounds) -> FloatArray:
    """Elements of regions [..., n_axes, 2]."""
    volume: FloatArray = (bounds[..., 1] - bounds[..., 0]).prod(axis=-1).astype(np.float64)
    return volume


def own_bytes(op: TensorOp, splits: Sequence[Split], input_dtypes: Sequence[str], estimate: Estimate) -> FloatArray:
    """Bytes that an op moves whatever the cuts of others: float64 [n_splits], for splits of equally many blocks.

    Args:
        op: The op.
        splits: Its cuts.
        input_dtypes: Of its inputs.
        estimate: What is taken to move.
    """
    moved = np.zeros(len(splits))
    for s, split in enumerate(splits):
        n_parts = int(split.block_part(op).max()) + 1
        partials = split.n_blocks // n_parts
        if partials > 1:
            moved[s] = op.n_bytes * (partials - 1 if estimate == "aligned" else partials)
        if estimate == "scattered":
            for k in distinct_inputs(op):
                moved[s] += _volume(split.input_bounds(op, k)).sum() * DTYPE_BYTES[input_dtypes[k]]
    return moved


def distinct_inputs(op: TensorOp) -> list[int]:
    """Positions of the inputs, without those that read the same tensor by the same labels once more."""
    reads = list(zip(op.inputs, op.input_labels, strict=True))
    return [k for k, read in enumerate(reads) if read not in reads[:k]]


def pair_bytes(
    producer: TensorOp,
    producer_splits: Sequence[Split],
    consumer: TensorOp,
    consumer_splits: Sequence[Split],
    position: int,
    estimate: Estimate,
) -> FloatArray:
    """Bytes that move because of how the cuts of a producer and a consumer fit: float64 [n_producer, n_consumer].

    Args:
        producer: No source.
        producer_splits: Its cuts, all into equally many blocks.
        consumer: Reads the producer's output.
        consumer_splits: Its cuts, all into equally many blocks.
        position: Which of the consumer's inputs it is.
        estimate: What is taken to move.
    """
    made = np.stack([split.bounds(producer, producer.labels) for split in producer_splits])
    read = np.stack([split.input_bounds(consumer, position) for split in consumer_splits])
    if estimate == "aligned":
        first = np.stack([_first_of_part(split, producer) for split in producer_splits])
        elements = _absent(made, first, read)
    else:
        elements = _put_together(made, read)
    return elements * DTYPE_BYTES[producer.dtype]


def _first_of_part(split: Split, op: TensorOp) -> BoolArray:
    """Whether a block is the first of those that make its part of the output, bool [n_blocks]."""
    first = np.zeros(split.n_blocks, dtype=np.bool_)
    first[np.unique(split.block_part(op), return_index=True)[1]] = True
    return first


def _absent(made: Bounds, first: BoolArray, read: Bounds) -> FloatArray:
    """Elements that the blocks read and that are not on the device of the same number: [n_producer, n_consumer]."""
    n = min(made.shape[1], read.shape[1])
    present = np.broadcast_to(first[:, None, :n], (len(made), len(read), n)).astype(np.float64)
    for axis in range(made.shape[2]):
        a, b = made[:, None, :n, axis], read[None, :, :n, axis]
        present *= np.maximum(np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0]), 0)
    absent: FloatArray = _volume(read).sum(axis=1) - present.sum(axis=2)
    return absent


def _put_together(made: Bounds, read: Bounds) -> FloatArray:
    """Elements of the different regions that lie in no single block of the producer: [n_producer, n_consumer]."""
    volume = _volume(read)
    for s, bounds in enumerate(read):
        again = np.ones(len(bounds), dtype=np.bool_)
        again[np.unique(bounds.reshape(len(bounds), -1), axis=0, return_index=True)[1]] = False
        volume[s, again] = 0
    inside = np.ones((len(made), len(read), made.shape[1], read.shape[1]), dtype=np.bool_)
    for axis in range(made.shape[2]):
        a, b = made[:, None, :, None, axis], read[None, :, None, :, axis]
        inside &= (a[..., 0] <= b[..., 0]) & (b[..., 1] <= a[..., 1])
    spanning: FloatArray = (volume * ~inside.any(axis=2)).sum(axis=-1)
    return spanning
