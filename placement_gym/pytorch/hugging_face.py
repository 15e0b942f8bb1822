"""Language models of the package `transformers`, made from a configuration: nothing is downloaded."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from placement_gym.errors import InvalidOption, MissingDependency, unknown_name
from placement_gym.graph import OpGraph
from placement_gym.pytorch.capture import capture
from placement_gym.pytorch.training import capture_training
from placement_gym.pytorch.updates import OptimizerName

Settings = Mapping[str, int | float | str | bool]


class _Scores(nn.Module):
    """A language model that takes tokens and returns a score per token and word, and nothing else."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401  (transformers has no types)
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, decoder_tokens: Tensor | None = None) -> Tensor:
        """[batch, tokens] (and as many tokens of the decoder, where there is one) -> [batch, tokens, vocabulary]."""
        if decoder_tokens is None:
            scores: Tensor = self.model(input_ids=tokens).logits
        else:
            scores = self.model(input_ids=tokens, decoder_input_ids=decoder_tokens).logits
        return scores


def hugging_face(
    model: str, *, config: Settings | None = None, batch: int = 1, tokens: int = 128
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A language model with random weights, and inputs for it.

    Attention is the plain one (`attn_implementation="eager"`), which any device can run; nothing is cached between
    calls. A model that is an encoder and a decoder (T5) gets as many tokens in each.

    Args:
        model: Its type as `transformers` names it: "gpt2", "bert", "t5", "llama", ...
        config: Changes of the type's default configuration, such as {"n_layer": 4}.
        batch: Texts.
        tokens: Length of a text.

    Returns:
        The module, and a tuple of int64 [batch, tokens] tensors of zeros.

    Raises:
        InvalidOption: An unknown model type, or a setting that its configuration does not have.
        MissingDependency: transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingDependency(
            f"the model {model!r} needs the package transformers: pip install placement-gym[transformers]"
        ) from error
    from transformers.models.auto import modeling_auto as auto

    # Most encoders can serve as decoders too: the family that reads both ways comes first.
    families = {
        transformers.AutoModelForSeq2SeqLM: auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        transformers.AutoModelForMaskedLM: auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        transformers.AutoModelForCausalLM: auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    }
    family = next((family for family, types in families.items() if model in types), None)
    if family is None:
        known = {kind for types in families.values() for kind in types}
        raise InvalidOption(unknown_name("language model of transformers", model, known))
    default = transformers.AutoConfig.for_model(model)
    names = {*default.to_dict(), *default.attribute_map}
    for name in config or {}:
        if name not in names:
            raise InvalidOption(unknown_name(f"setting of {model}", name, names))
    settings = transformers.AutoConfig.for_model(model, **{**(config or {}), "use_cache": False})
    made = family.from_config(settings, attn_implementation="eager")
    n_inputs = 2 if settings.is_encoder_decoder else 1
    return _Scores(made), tuple(torch.zeros(batch, tokens, dtype=torch.int64) for _ in range(n_inputs))


def capture_hugging_face(
    model: str,
    *,
    config: Settings | None = None,
    batch: int = 1,
    tokens: int = 128,
    optimizer: OptimizerName | None = None,
) -> OpGraph:
    """The graph of a language model of `transformers`, captured without weights.

    Args:
        model: As in `hugging_face`; so are the next three.
        config: Changes of the default configuration.
        batch: Texts.
        tokens: Length of a text.
        optimizer: Where given, one training step with it (`capture_training`); else a forward pass (`capture`).

    Raises:
        CaptureError: As `capture`: some models decide by the values of tensors.
        InvalidOption: As `hugging_face`.
        MissingDependency: As `hugging_face`.
    """
    # Fake tensors have no storage, as those on the meta device, but models take them for real ones on the CPU.
    with FakeTensorMode(allow_non_fake_inputs=True):
        module, inputs = hugging_face(model, config=config, batch=batch, tokens=tokens)
    if optimizer is None:
        return capture(module, inputs)
    return capture_training(module, inputs, optimizer=optimizer)
