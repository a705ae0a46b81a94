"""`ouro-rl bench cache`: KV memory, from the engine's count of pages in use at its peak.

    kv_bytes_ratio   bytes of the completions' pages at mean depth 2.5 / at depth 4

A completion's positions are those whose depth the gate decides: one per new token, starting at the last prompt
position. The pages of the other prompt positions, which run all loops, are not in this ratio but in `with_prompts` and
`with_shared_prompts` (groups). The figures do not depend on time: one run of 4 samples and one of a group of 16, with
32 new tokens each.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ouro_rl.bench.timing import Say, run_engine
from ouro_rl.bench.workload import Sizes, bench_model, make_requests, trace_seeds
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.sampling_params import ExitRule
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from rollout_workers.engine.engine import RolloutEngine


def bench_cache(sizes: Sizes, say: Say) -> dict[str, Any]:
    """The section `cache` of the JSON; `ratios` by their top-level names."""
    sizes = replace(sizes, tokens=sizes.curve_tokens)
    model = bench_model(sizes)
    full_rule = ExitRule(kind="fixed", value=sizes.loops)
    found: dict[str, Any] = {}
    for name, count, group in (("alone", sizes.cache_batch, 1), ("group", sizes.group, sizes.group)):
        say(f"samples: {name}")
        seeds = trace_seeds(model, sizes, count, sizes.tokens)
        engine = RolloutEngine(model, EngineConfig(max_batch=count))
        requests = make_requests(sizes, seeds, prompt=sizes.prompt, group=group)
        prompts = len(requests) * (sizes.prompt - 1) * sizes.loops * engine.cache.page_bytes
        adaptive, full = (run_engine(engine, requests, sizes.tokens, rule) for rule in (ExitRule(), full_rule))
        found[name] = {
            "prompt_bytes": prompts,
            "completion_bytes": adaptive.peak_bytes - prompts,
            "completion_bytes_full_depth": full.peak_bytes - prompts,
            "ratio": (adaptive.peak_bytes - prompts) / (full.peak_bytes - prompts),
            "ratio_with_prompts": adaptive.peak_bytes / full.peak_bytes,
            "mean_depth": adaptive.mean_depth,
            "bytes_per_token": (adaptive.peak_bytes - prompts) / adaptive.last.tokens,
            "positions": adaptive.last.tokens,
        }
    ratio = found["alone"]["ratio"]
    return {
        "ratios": {"kv_bytes_ratio": {"median": ratio, "least": ratio, "greatest": ratio, "count": 1}},
        "page_bytes": model_page_bytes(model),
        "with_prompts": found["alone"]["ratio_with_prompts"],
        "with_shared_prompts": found["group"]["ratio_with_prompts"],
        **found,
    }


def model_page_bytes(model: OuroForCausalLM) -> int:
    """Bytes that one token writes per loop, from the model's shape."""
    config = model.config
    _, kv_heads, head_dim = config.attention_shape
    return 2 * config.num_hidden_layers * kv_heads * head_dim * model.dtype.itemsize
