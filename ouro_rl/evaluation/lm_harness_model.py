"""A checkpoint as the model `ouro-rl` of lm-evaluation-harness, with depths that vary from token to token.

Completions come from the rollout engine, log-likelihoods from replays at the depths that the exit rule gives. Importing
this module registers the model; it needs lm-evaluation-harness, which is no dependency of ouro-rl."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import expand
from ouro_rl.core.rollout import Prompt, RolloutRequest
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, SamplingParams
from ouro_rl.core.seeds import sample_seed
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.policy.exit_gate import check_depth_policy, exit_quantiles, exits, log_stay
from ouro_rl.model.token_bytes import stop_strings_of
from ouro_rl.model.tokenizer import completion_texts, stop_token_ids
from rollout_workers.pool import make_pool

NAME = "ouro-rl"
MAX_NEW_TOKENS = 256
"""Where a task says nothing, as in the harness's own models."""
MAX_LENGTH = 4096
"""Longest context of a log-likelihood, in tokens, if the checkpoint allows it."""


@register_model(NAME)
class OuroLM(TemplateLM):
    """`depth` (a fixed number of loops) or `threshold` (Q-exit) says how deep tokens are; without either, every token
    runs the loops that the checkpoint was trained with."""

    def __init__(
        self,
        pretrained: str,
        revision: str | None = None,
        depth: int | None = None,
        threshold: float | None = None,
        dtype: str = "float32",
        batch_size: int | str = 8,
        seed: int = 0,
        max_length: int | None = None,
        **given: Any,
    ) -> None:
        """`given`: what the harness passes to every model (device, max_batch_size); the engine chooses its own device
        and batches. Raises UserError for anything else, and for both a depth and a threshold."""
        super().__init__()
        if unknown := sorted(given.keys() - {"device", "max_batch_size", "trust_remote_code"}):
            known = "pretrained, revision, depth, threshold, dtype, seed and max_length"
            raise UserError(f"--model_args {unknown[0]}: unknown; known are {known}")
        if depth is not None and threshold is not None:
            raise UserError("--model_args: give depth or threshold, not both")
        pretrained = expand(pretrained)  # a shell leaves the `~` of `pretrained=~/model`
        self.model, self.tokenizer = load_policy(pretrained, getattr(torch, dtype), revision)
        self.model.eval()
        config = self.model.config
        loops = config.total_ut_steps if depth is None else int(depth)
        fixed = ExitRule(kind="fixed", value=loops)
        self.rule = fixed if threshold is None else ExitRule(kind="threshold", value=threshold)
        self.policy = DepthPolicy(max_depth=loops)
        check_depth_policy(self.policy, self.rule, config.total_ut_steps)
        self.pretrained, self.seed = pretrained, seed
        self.rows = int(batch_size) if str(batch_size).isdecimal() else 8
        self.max_length = min(max_length or MAX_LENGTH, config.max_position_embeddings)
        self.pool = make_pool(0, config.to_dict(), EngineConfig(dtype=dtype))
        self.pool.publish(self.model.state_dict(), 0)

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def tokenizer_name(self) -> str:
        return self.pretrained.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.tokenizer(string, add_special_tokens=bool(add_special_tokens))["input_ids"]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    # --- completions

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Completions up to, and without, the first of the task's stop strings."""
        groups: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[repr(sorted(request.args[1].items()))].append(index)
        texts = [""] * len(requests)
        for places in groups.values():
            options = dict(requests[places[0]].args[1])
            contexts = [requests[place].args[0] for place in places]
            for place, text in zip(places, self._complete(contexts, options), strict=True):
                texts[place] = text
                self.cache_hook.add_partial("generate_until", requests[place].args, text)
        return texts

    def _complete(self, contexts: Sequence[str], options: Mapping[str, Any]) -> list[str]:
        until = options.get("until") or []
        until = [until] if isinstance(until, str) else [text for text in until if text]
        limit = int(options.get("max_gen_toks", MAX_NEW_TOKENS))
        temperature = float(options.get("temperature", 0.0)) if options.get("do_sample", True) else 0.0
        params = SamplingParams(
            max_new_tokens=limit,
            temperature=temperature,
            exit_rule=self.rule,
            depth_policy=self.policy,
            stop_token_ids=stop_token_ids(self.tokenizer, (), "until"),
            stop_strings=stop_strings_of(self.tokenizer, self._producible(until), "until"),
        )
        if temperature > 0:
            filters = {name: options[name] for name in ("top_k", "top_p", "min_p") if name in options}
            params = dataclasses.replace(params, filters=dataclasses.replace(params.filters, **filters))
        room = max(1, self.max_length - limit)
        asked = [
            RolloutRequest(
                prompt=Prompt(index=index, token_ids=tuple(self.tok_encode(text) or [self.prefix_token_id])[-room:]),
                seeds=(sample_seed(self.seed, 0, index, 0),),
            )
            for index, text in enumerate(contexts)
        ]
        rollouts = self.pool.rollout(asked, params)
        return [_before(text, until) for text in completion_texts(self.tokenizer, rollouts)]

    def _producible(self, strings: Sequence[str]) -> list[str]:
        """The strings that this tokenizer can write; it never writes the others, so nothing ends there."""
        found = []
        for text in strings:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            if text in self.tokenizer.decode(ids):
                found.append(text)
        return found

    # --- log-likelihoods

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """For each (texts, context, continuation): the log-likelihood of the continuation, in nats, and whether it is
        what greedy decoding gives."""
        results: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        order = sorted(range(len(requests)), key=lambda index: -len(requests[index][1]) - len(requests[index][2]))
        for start in range(0, len(order), self.rows):
            places = order[start : start + self.rows]
            pairs = [self._fitting(*requests[place][1:]) for place in places]
            for place, result in zip(places, self._read(pairs), strict=True):
                results[place] = result
                if requests[place][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[place][0], result)
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, in windows of the longest context."""
        sums = []
        for request in requests:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length - 1,
                context_len=1,
            )
            parts = [(None, *make_disjoint_window(window)) for window in windows]
            sums.append(sum(value for value, _ in self._loglikelihood_tokens(parts)))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, sums[-1])
        return sums

    def _fitting(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """The end of a context that is too long."""
        room = max(1, self.max_length - len(continuation))
        return context[-room:], continuation

    @torch.no_grad()
    def _read(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Iterator[tuple[float, bool]]:
        sequences = [(context + continuation)[:-1] for context, continuation in pairs]
        longest = max(map(len, sequences))
        ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        loops = self.policy.max_depth
        assert loops is not None, "__init__ sets it"
        depths = torch.zeros_like(ids)
        decided = torch.zeros_like(ids, dtype=torch.bool)
        for row, (sequence, (context, _)) in enumerate(zip(sequences, pairs, strict=True)):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            depths[row, : len(sequence)] = loops
            decided[row, len(context) - 1 : len(sequence)] = True
        states = states_under(self.model, ids, depths, decided, self.rule)
        for row, (context, continuation) in enumerate(pairs):
            kept = states[row, len(context) - 1 : len(context) - 1 + len(continuation)]
            logprobs = self.model.row_logits(kept).float().log_softmax(-1)
            wanted = torch.tensor(continuation)
            chosen = logprobs.gather(1, wanted.unsqueeze(1)).sum()
            yield float(chosen), bool((logprobs.argmax(-1) == wanted).all())


def states_under(model: OuroForCausalLM, ids: Tensor, depths: Tensor, decided: Tensor, rule: ExitRule) -> Tensor:
    """The states [B, S, hidden] at which each position leaves, as in a generation that has these tokens.

    ids, depths [B, S], depths 0 at padding and the most loops elsewhere; `decided`: the positions whose depth the rule
    chooses; the others (a prompt) run all loops. The states of loop t depend on loops <= t alone. So a replay in which
    all decisions up to loop t - 1 are right has the right gates for loop t, and as many replays as there are loops find
    all depths."""
    loops = int(depths.max())
    if rule.kind == "fixed":
        return model.model(input_ids=ids, depths=depths, num_loops=loops).last_hidden_state
    depths, quantile = depths.clone(), exit_quantiles(rule, torch.zeros(1))
    for loop in range(1, loops):
        output = model.model(input_ids=ids, depths=depths, num_loops=loops)
        survival = log_stay(output.gate_logits[:loop]).sum(0)
        leaves = exits(rule, survival, quantile, torch.tensor(loop), loops) & decided & (depths == loops)
        depths[leaves] = loop
    return model.model(input_ids=ids, depths=depths, num_loops=loops).last_hidden_state


def _before(text: str, ends: Sequence[str]) -> str:
    """`text` up to the first of `ends`."""
    return text[: min((text.index(end) for end in ends if end in text), default=len(text))]
