"""Loading a policy, model and tokenizer, with clear errors; used by training, evaluation and the rollout engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from ouro_rl.core.errors import UserError, first_line
from ouro_rl.core.paths import is_local
from ouro_rl.model.checkpoint_files import refuse_misfit
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.tokenizer import load_tokenizer


def load_policy(path: str, dtype: torch.dtype, revision: str | None = None) -> tuple[OuroForCausalLM, Any]:
    """Model (on the CPU, in evaluation mode) and tokenizer of a folder or hub id (at `revision`), weights converted to
    `dtype`.

    The model's special token ids are set to the tokenizer's. Raises UserError if the checkpoint does not exist, is not
    an Ouro model, has tensors that do not match its config (naming the tensor and both shapes), or weights that are not
    finite. Never runs a checkpoint's own code."""
    config = load_model_config(path, revision)
    tokenizer = load_tokenizer(path, revision)
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"model {path}: the tokenizer has {len(tokenizer)} tokens, the model only {config.vocab_size} "
            "(vocab_size);\n  copy the model's own tokenizer into its folder"
        )
    with _quiet_if_local(path):
        try:
            loaded: Any = OuroForCausalLM.from_pretrained(
                path,
                config=config,
                dtype=dtype,
                revision=revision or "main",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except OSError as error:
            raise UserError(f"model {path}: no weights could be read ({first_line(error)})") from error
    model, info = loaded
    wrong = {tensor: (tuple(found), tuple(expected)) for tensor, found, expected in info["mismatched_keys"]}
    refuse_misfit(f"model {path}", wrong, info["missing_keys"], info["unexpected_keys"])
    if broken := first_not_finite(model):
        raise UserError(f"model {path}: {broken} is not finite; take an earlier checkpoint, or copy this one again")
    for holder in (model.config, model.generation_config):
        holder.bos_token_id, holder.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        holder.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def first_not_finite(model: torch.nn.Module) -> str | None:
    """The name of the first parameter that holds NaN or infinity; None if all are finite."""
    return next((name for name, tensor in model.named_parameters() if not tensor.isfinite().all()), None)


def load_model_config(path: str, revision: str | None = None) -> OuroConfig:
    """The config of a folder or hub id. Raises UserError if it is missing or not that of an Ouro model."""
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise UserError(f"model {path}: no usable config.json ({first_line(error)})") from error
    if not isinstance(config, OuroConfig):
        raise UserError(f"model {path}: model_type is {config.model_type!r}; only `ouro` models have loops to train")
    return config


@contextmanager
def _quiet_if_local(path: str) -> Iterator[None]:
    """Hide the progress bar for local files, which load in seconds; keep it for downloads."""
    shown = transformers_logging.is_progress_bar_enabled()
    if is_local(path):
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
