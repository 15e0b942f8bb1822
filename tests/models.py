"""Every model at sizes that differ and are odd where they may be, in double precision."""

from collections.abc import Callable, Mapping

import placement_gym as pg
from placement_gym.programs import TensorProgram

TINY: Mapping[str, Callable[[], TensorProgram]] = {
    "chain_mm": lambda: pg.workloads.chain_mm(size=5),
    "ffnn": lambda: pg.workloads.ffnn(batch=7, width=3, hidden=11),
    "llama_block": lambda: pg.workloads.llama_block(batch=3, tokens=5, width=12, n_heads=2, ffn=7),
    "llama_layer": lambda: pg.workloads.llama_layer(batch=3, tokens=5, width=12, n_heads=2, ffn=7, vocabulary=13),
    "gpt": lambda: pg.workloads.gpt(2, batch=3, tokens=5, width=6, n_heads=2, vocabulary=13),
    "bert": lambda: pg.workloads.bert(2, batch=3, tokens=5, width=6, n_heads=2, vocabulary=13),
    "t5": lambda: pg.workloads.t5(2, batch=3, tokens=5, width=6, n_heads=2, vocabulary=13),
    "moe": lambda: pg.workloads.moe(2, 3, batch=2, tokens=7, width=6, n_heads=2),
    "vgg19": lambda: pg.workloads.vgg19(batch=3, n_classes=5, image=69, width=2, hidden=7),
    "resnet50": lambda: pg.workloads.resnet50(batch=3, n_classes=5, image=69, width=2),
}


def tiny(model: str) -> TensorProgram:
    """The model of that name, small."""
    return TINY[model]().cast("float64")
