"""Convolutional networks: VGG-19 and ResNet-50.

Labels: n image, c channel in, o channel out, h w row and column before, p q row and column after, i j tap of a kernel.
Rows, columns and taps are never split.
"""

from placement_gym.errors import InvalidOption
from placement_gym.programs import ProgramBuilder, TensorProgram
from placement_gym.workloads.models.layers import Tensor, check_sizes, finished, linear

# Channels of VGG's stages, in units of the first's, and convolutions in each.
VGG19_STAGES = ((1, 2), (2, 2), (4, 4), (8, 4), (8, 4))
# Blocks of ResNet-50's stages; each stage has twice the channels of the one before.
RESNET50_BLOCKS = (3, 4, 6, 3)


def _convolution(p: ProgramBuilder, x: Tensor, channels: int, kernel: int, stride: int = 1) -> Tensor:
    """A convolution without bias, padded so that stride 1 keeps rows and columns."""
    _, c, h, w = p.shape(x)
    weight = p.parameter("weight", [channels, c, kernel, kernel])
    padding = kernel // 2
    rows, columns = ((size + 2 * padding - kernel) // stride + 1 for size in (h, w))
    return p.op(
        "conv2d",
        "nchw,ocij->nopq",
        x,
        weight,
        whole="hwijpq",
        sizes={"p": rows, "q": columns},
        options={"stride": stride, "padding": padding},
    )


def _max_pool(p: ProgramBuilder, x: Tensor, window: int, stride: int, padding: int) -> Tensor:
    _, _, h, w = p.shape(x)
    rows, columns = ((size + 2 * padding - window) // stride + 1 for size in (h, w))
    options = {"window": window, "stride": stride, "padding": padding}
    return p.op("max_pool2d", "nchw->ncpq", x, whole="hwpq", sizes={"p": rows, "q": columns}, options=options)


def _batch_norm(p: ProgramBuilder, x: Tensor) -> Tensor:
    """Batch normalisation (Ioffe and Szegedy, 2015, algorithm 1) with the statistics of the batch."""
    n, channels, rows, columns = p.shape(x)
    count = n * rows * columns
    with p.scope("norm"):
        total = p.op("sum", "ncpq->c", x, whole="pq")
        mean = p.op("affine", "c->c", total, options={"factor": 1 / count, "shift": 0.0})
        x = p.op("sub", "ncpq,c->ncpq", x, mean, whole="pq")
        total = p.op("sum", "ncpq->c", p.op("square", "ncpq->ncpq", x, whole="pq"), whole="pq")
        variance = p.op("affine", "c->c", total, options={"factor": 1 / count, "shift": 1e-5})
        # The gain joins the deviation before either meets the images.
        gain = p.op("mul", "c,c->c", p.op("rsqrt", "c->c", variance), p.parameter("gain", [channels]))
        x = p.op("mul", "ncpq,c->ncpq", x, gain, whole="pq")
        return p.op("add", "ncpq,c->ncpq", x, p.parameter("shift", [channels]), whole="pq")


def _relu(p: ProgramBuilder, x: Tensor) -> Tensor:
    return p.op("relu", "ncpq->ncpq", x, whole="pq")


def vgg19(
    *,
    batch: int = 32,
    n_classes: int = 1000,
    image: int = 224,
    width: int = 64,
    hidden: int = 4096,
    training: bool = False,
) -> TensorProgram:
    """VGG-19 (Simonyan and Zisserman, 2015, configuration E), without dropout: scores of the classes.

    Args:
        batch: Images.
        n_classes: Classes.
        image: Rows and columns of an image.
        width: Channels of the first stage.
        hidden: Features between the last three products.
        training: Whether the backward pass is there too.

    Raises:
        InvalidOption: A size below 1, or an image below 32, which five halvings leave nothing of.
    """
    check_sizes("vgg19", batch=batch, n_classes=n_classes, width=width, hidden=hidden)
    if image < 32:
        raise InvalidOption(f"vgg19: image is {image}; expected at least 32")
    p = ProgramBuilder("vgg19")
    x = p.input("images", [batch, 3, image, image])
    for stage, (multiple, n_convolutions) in enumerate(VGG19_STAGES):
        for layer in range(n_convolutions):
            with p.scope(f"stage{stage}.layer{layer}"):
                x = _convolution(p, x, multiple * width, 3)
                x = p.op("add", "ncpq,c->ncpq", x, p.parameter("bias", [multiple * width]), whole="pq")
                x = _relu(p, x)
        with p.scope(f"stage{stage}"):
            x = _max_pool(p, x, 2, 2, 0)
    _, channels, rows, columns = p.shape(x)
    with p.scope("hidden0"):
        x = p.op("einsum", "ncpq,ocpq->no", x, p.parameter("weight", [hidden, channels, rows, columns]), whole="pq")
        x = p.op("relu", "no->no", p.op("add", "no,o->no", x, p.parameter("bias", [hidden])))
    x = p.op("relu", "no->no", linear(p, "hidden1", x, "ni,io->no", {"o": hidden}, bias=True), name="hidden1.relu")
    return finished(p, linear(p, "head", x, "ni,io->no", {"o": n_classes}, bias=True), with_training=training)


def _bottleneck(p: ProgramBuilder, x: Tensor, channels: int, stride: int, *, is_first: bool) -> Tensor:
    """1x1, 3x3 (with the stride) and 1x1 convolutions beside a shortcut."""
    y = x
    for name, made, kernel, step in (("reduce", channels, 1, 1), ("filter", channels, 3, stride)):
        with p.scope(name):
            y = _relu(p, _batch_norm(p, _convolution(p, y, made, kernel, step)))
    with p.scope("restore"):
        y = _batch_norm(p, _convolution(p, y, 4 * channels, 1))
    if is_first:
        with p.scope("shortcut"):
            x = _batch_norm(p, _convolution(p, x, 4 * channels, 1, stride))
    return _relu(p, p.op("add", "ncpq,ncpq->ncpq", y, x, whole="pq", name="residual"))


def resnet50(
    *, batch: int = 32, n_classes: int = 1000, image: int = 224, width: int = 64, training: bool = False
) -> TensorProgram:
    """ResNet-50 (He et al., 2016), strides in the 3x3 convolutions, norms of the batch: scores of the classes.

    Args:
        batch: Images.
        n_classes: Classes.
        image: Rows and columns of an image.
        width: Channels of the first stage.
        training: Whether the backward pass is there too.

    Raises:
        InvalidOption: A size below 1.
    """
    check_sizes("resnet50", batch=batch, n_classes=n_classes, image=image, width=width)
    p = ProgramBuilder("resnet50")
    x = p.input("images", [batch, 3, image, image])
    with p.scope("stem"):
        x = _max_pool(p, _relu(p, _batch_norm(p, _convolution(p, x, width, 7, 2))), 3, 2, 1)
    for stage, n_blocks in enumerate(RESNET50_BLOCKS):
        for block in range(n_blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            with p.scope(f"stage{stage}.block{block}"):
                x = _bottleneck(p, x, 2**stage * width, stride, is_first=block == 0)
    _, _, rows, columns = p.shape(x)
    with p.scope("pool"):
        total = p.op("sum", "ncpq->nc", x, whole="pq")
        x = p.op("affine", "nc->nc", total, options={"factor": 1 / (rows * columns), "shift": 0.0})
    return finished(p, linear(p, "head", x, "nc,co->no", {"o": n_classes}, bias=True), with_training=training)
