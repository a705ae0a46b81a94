"""Names of our settings in other systems (TRL, verl, OpenRLHF). Error messages translate them; they are never
accepted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

KL = "there is no KL penalty and no reference model"
LEARNING_RATE = "trainer.lr (the exit gate has its own, gate.lr)"
PASSES = "trainer.prompts_per_step (groups in an update) and trainer.micro_batch (completions in one pass)"
ENGINE = "vLLM runs a fixed depth and is not used: set rollout.workers and rollout.worker_gpus for the built-in engine"
TRACKER = "there is no tracker: metrics.jsonl and report.html in run.dir hold every update"
UPLOAD = "nothing is uploaded: a checkpoint in run.dir is a Hugging Face folder, for `hf upload`"
LORA = "there is no LoRA: all weights are trained"
PARALLEL = "there is only data parallelism: `accelerate launch --num_processes N --module ouro_rl train ...`"
RESUME = "the option --resume, with run.dir"

ALIASES = {
    "trainer.group_size": ("num_generations", "n", "n_samples_per_prompt"),
    PASSES: ("per_device_train_batch_size", "gradient_accumulation_steps", "batch_size", "generation_batch_size"),
    "trainer.prompts_per_step": ("train_batch_size", "rollout_batch_size"),
    "trainer.micro_batch": (
        "micro_train_batch_size", "micro_batch_size", "ppo_micro_batch_size", "ppo_micro_batch_size_per_gpu",
    ),
    "trainer.refill (in rounds)": (
        "filter_groups", "max_num_gen_batches", "dynamic_sampling", "dynamic_filtering",
    ),
    "trainer.updates_per_batch": ("num_iterations", "ppo_epochs", "steps_per_generation", "ppo_mini_batch_size"),
    "trainer.max_staleness": ("async_train", "async_queue_size", "async_training", "staleness_threshold"),
    "trainer.in_flight": ("in_flight_weight_updates", "partial_rollout"),
    "trainer.steps": (
        "max_steps", "num_steps", "total_training_steps", "num_episodes",
    ),
    "trainer.epochs": ("num_train_epochs", "total_epochs", "max_epochs"),
    LEARNING_RATE: ("lr", "learning_rate", "actor_learning_rate"),
    "trainer.lr_scheduler": ("lr_scheduler_type",),
    "trainer.lr_warmup (in updates)": (
        "warmup_steps", "warmup_ratio", "lr_warmup_steps", "lr_warmup_steps_ratio", "lr_warmup_ratio",
    ),
    "trainer.max_grad_norm": ("grad_clip", "max_norm"),
    "trainer.clip_low and trainer.clip_high": ("epsilon", "cliprange", "clip_ratio", "eps_clip", "clip_range"),
    "trainer.clip_low": ("clip_ratio_low", "epsilon_low", "eps_clip_low"),
    "trainer.clip_high": ("clip_ratio_high", "epsilon_high", "eps_clip_high"),
    "trainer.mask_truncated": ("mask_truncated_completions", "overlong_filtering", "overlong_filter"),
    "trainer.checkpoint_every": ("save_steps", "save_freq", "save_strategy"),
    "trainer.keep_checkpoints": ("save_total_limit", "max_ckpt_to_keep", "max_actor_ckpt_to_keep", "max_ckpt_num"),
    "rollout.max_new_tokens": (
        "max_completion_length", "max_response_length", "response_length", "generate_max_len", "max_tokens",
        "max_length",
    ),
    "data.max_prompt_tokens": ("max_prompt_length", "prompt_max_len", "prompt_length"),
    "rollout.stop_strings": ("stop", "stop_words"),
    "model.path": ("model_name_or_path", "model_name", "pretrain", "model_id"),
    "model.dtype": ("bf16", "fp16", "torch_dtype", "precision", "param_dtype"),
    "model.gradient_checkpointing": ("enable_gradient_checkpointing",),
    "rewards.functions": (
        "reward_funcs", "reward_function", "reward_functions", "custom_reward_function", "remote_rm_url",
        "reward_pretrain",
        "reward_model", "reward_manager", "reward_model_path",
    ),
    "the weight of an entry of rewards.functions": ("reward_weights",),
    "data.source": (
        "dataset", "dataset_name", "dataset_path", "prompt_data", "train_files", "train_dataset", "train_file",
    ),
    "data.name": ("dataset_config", "dataset_config_name"),
    "data.split": ("dataset_train_split", "prompt_split", "train_split"),
    "data.question_column": ("prompt_key", "input_key"),
    "data.answer_column": ("label_key",),
    "eval.source": ("val_files", "eval_dataset", "dataset_test_split", "eval_dataset_name"),
    "eval.every (in updates; before and after training there is always one)": (
        "eval_strategy", "eval_steps", "test_freq", "val_before_train", "do_eval", "evaluation_strategy",
        "eval_interval",
    ),
    "eval.patience (in evaluations)": ("early_stopping_patience", "early_stopping"),
    "eval.every, which keeps the best weights in run.dir/best": (
        "load_best_model_at_end", "save_best", "metric_for_best_model",
    ),
    "run.dir": (
        "output_dir", "default_local_dir", "save_path", "ckpt_path", "run_name", "experiment_name", "logging_dir",
    ),
    "run.seed": ("data_seed",),
    RESUME: ("resume_from_checkpoint", "resume_mode", "load_checkpoint", "resume_from_path"),
    KL: (
        "beta", "kl_coef", "init_kl_coef", "kl_loss_coef", "use_kl_loss", "use_kl_in_reward", "kl_ctrl",
        "ref_model", "ref_model_path",
    ),
    TRACKER: (
        "report_to", "use_wandb", "wandb", "wandb_project", "wandb_entity", "logger", "logging_steps", "project_name",
        "use_tensorboard",
    ),
    UPLOAD: ("push_to_hub", "hub_model_id", "hub_token", "hub_strategy"),
    ENGINE: (
        "use_vllm", "vllm_mode", "vllm_gpu_memory_utilization", "gpu_memory_utilization", "tensor_model_parallel_size",
        "vllm_num_engines", "vllm_tensor_parallel_size", "vllm_server_host", "actor_rollout_ref",
    ),
    LORA: ("use_peft", "peft_config", "lora_r", "lora_rank", "lora_alpha", "load_in_4bit", "load_in_8bit"),
    PARALLEL: (
        "deepspeed", "fsdp", "fsdp_config", "zero_stage", "nnodes", "n_gpus_per_node", "num_gpus",
        "actor_num_gpus_per_node",
    ),
    "GRPO is the only algorithm; trainer.loss_type and trainer.scale_rewards choose its variant": (
        "algorithm", "adv_estimator", "advantage_estimator",
    ),
    "AdamW is the only optimizer": ("optim", "optimizer", "adam_beta1", "adam_epsilon"),
}  # fmt: skip
"""Our key or keys, or what to do instead -> the names in other systems that it replaces."""
MEANINGS = {name: text for text, names in ALIASES.items() for name in names}


def meaning(key: str) -> str | None:
    """Our equivalent of a dotted key (or of an option without its dashes) of another system; None if unknown."""
    parts = key.replace("-", "_").split(".")
    return next((MEANINGS[part] for part in reversed(parts) if part in MEANINGS), None)


def _here(name: str, keys: Iterable[str]) -> str | None:
    """Our equivalent of a name without its section, or of a name from another system."""
    word = name.replace("-", "_")
    return meaning(name) or " or ".join(key for key in keys if key.rpartition(".")[2] == word) or None


def option_hint(text: str, following: str | None, options: Iterable[str], keys: Iterable[str]) -> str:
    """What to write instead of an unknown option. `following`: the argument after it. `options`: those of the command.
    `keys`: those of its config, if it takes one."""
    name, equals, value = text.lstrip("-").partition("=")
    spelled, options = "--" + name.replace("_", "-"), list(options)
    if spelled in options:
        return f"did you mean {spelled}?"
    if name in (keys := list(keys)):
        return f"{name} is a key, written without dashes: {name}={value if equals else following or '...'}"
    if keys and (here := _here(name, keys)):
        return f"{name}: here {here}"
    near = difflib.get_close_matches(spelled, options, n=1)
    return f"did you mean {near[0]}?" if near else ""


def argument_hint(arguments: Sequence[str], at: int, keys: Iterable[str]) -> str | None:
    """What to write instead of a positional argument that looks like another system's override; None if it does not."""
    text = arguments[at]
    name, equals, value = text.lstrip("+").partition("=")
    if text.startswith("+") and equals:
        return f"{text}: an override is written without +: {name}={value}"
    if equals:
        return f"{text}: is neither a config file nor an override; write section.key=value, without spaces before ="
    following = arguments[at + 1] if at + 1 < len(arguments) and "=" not in arguments[at + 1] else "..."
    if name in (keys := list(keys)):
        return f"{text}: is a key; give its value with =, as in {name}={following}"
    if here := _here(name, keys):
        return f"{text}: is not a config file; as a setting: {here}"
    return None
