"""Models written as tensor programs, with sizes as arguments; nothing is computed until a program runs."""

from placement_gym.workloads.models.chains import chain_mm, ffnn
from placement_gym.workloads.models.convolutional import resnet50, vgg19
from placement_gym.workloads.models.expression import expression
from placement_gym.workloads.models.llama import llama_block, llama_layer
from placement_gym.workloads.models.transformers import bert, gpt, moe, t5

__all__ = [
    "bert",
    "chain_mm",
    "expression",
    "ffnn",
    "gpt",
    "llama_block",
    "llama_layer",
    "moe",
    "resnet50",
    "t5",
    "vgg19",
]
