"""What the model relies on inside transformers.

If one of these fails after an upgrade, that interface has changed: the names of the cache are handled in
`ouro_rl/model/transformers_seams.py`, everything else in `ouro_rl/model/modeling_ouro.py` and `layers.py`."""

import inspect
import warnings
from functools import partial

import pytest
import torch
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, slice_logits_to_keep
from transformers.models.llama.modeling_llama import eager_attention_forward

from ouro_rl.model.modeling_ouro import OuroCausalLMOutput, OuroModelOutput
from ouro_rl.model.transformers_seams import CACHE, CACHE_NAMES
from tests.references.tiny_models import random_model

IDS = torch.randint(0, 41, (2, 10), generator=torch.Generator().manual_seed(0))


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_create_causal_mask_takes_our_arguments():
    assert {"config", "inputs_embeds", "attention_mask", "position_ids", CACHE} <= set(parameters(create_causal_mask))


def test_generation_names_the_cache_as_the_mask_does():
    assert CACHE in parameters(GenerationMixin.prepare_inputs_for_generation)


def test_a_dynamic_cache_can_be_widened_in_place():
    cache = DynamicCache()
    assert cache.layer_class_to_replicate is DynamicLayer and cache.layers == []
    assert parameters(cache.update)[:3] == ["key_states", "value_states", "layer_idx"]
    assert cache.get_seq_length() == 0


def test_attention_functions_are_chosen_and_called_as_before():
    assert parameters(ALL_ATTENTION_FUNCTIONS.get_interface) == ["attn_implementation", "default"]
    assert parameters(eager_attention_forward)[:7] == [
        "module",
        "query",
        "key",
        "value",
        "attention_mask",
        "scaling",
        "dropout",
    ]


def test_logits_are_kept_by_number_or_by_index():
    states = torch.arange(12.0).view(1, 4, 3)
    assert torch.equal(slice_logits_to_keep(states, 0), states)
    assert torch.equal(slice_logits_to_keep(states, 2), states[:, -2:])
    assert torch.equal(slice_logits_to_keep(states, torch.tensor([1])), states[:, [1]])


def test_checkpointed_layers_pass_positional_arguments_through():
    class Twice(GradientCheckpointingLayer):
        def forward(self, x, function):
            return function(x)

    layer, x = Twice().train(), torch.ones(2, requires_grad=True)
    layer.gradient_checkpointing = True
    layer._gradient_checkpointing_func = partial(torch.utils.checkpoint.checkpoint, use_reentrant=False)
    layer(x, lambda y: 2 * y).sum().backward()
    assert torch.equal(x.grad, torch.full((2,), 2.0))


@pytest.mark.parametrize("output", [OuroModelOutput, OuroCausalLMOutput])
def test_outputs_carry_the_cache_under_both_names_and_in_its_place(output):
    cache = DynamicCache()
    made = output(gate_logits=torch.ones(1), **{CACHE: cache})
    assert list(made.keys()) == [CACHE, "gate_logits"]
    assert all(getattr(made, name) is cache for name in CACHE_NAMES)
    assert all(getattr(output(), name) is None for name in CACHE_NAMES)


@torch.no_grad()
@pytest.mark.parametrize("name", CACHE_NAMES)
def test_a_forward_takes_and_gives_the_cache_under_both_names(name):
    model = random_model(seed=3, layers=2, loops=3)
    first = model(IDS[:, :6], use_cache=True)
    second = model(IDS[:, 6:], use_cache=True, **{name: getattr(first, name)})
    assert (torch.cat([first.logits, second.logits], 1) - model(IDS).logits).abs().max() <= 1e-4
    with pytest.raises(ValueError, match="pass the cache once"):
        model(IDS, cache=DynamicCache(), past_key_values=DynamicCache())


@torch.no_grad()
def test_generation_returns_the_cache_to_the_model_without_deprecation_warnings():
    model, lengths = random_model(seed=3, layers=2, loops=3), []
    model.model.embed_tokens.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    model.generation_config.eos_token_id = None
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        tokens = model.generate(IDS, max_new_tokens=4, do_sample=False)
    assert lengths == [10, 1, 1, 1]
    model.generation_config.use_cache = False
    assert torch.equal(tokens, model.generate(IDS, max_new_tokens=4, do_sample=False))
