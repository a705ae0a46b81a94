"""`OuroConfig`: the published checkpoints' configuration (model_type `ouro`), on transformers 5."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class OuroConfig(PreTrainedConfig):
    """Shape of a looped language model. Defaults are those of ByteDance/Ouro-1.4B.

    `total_ut_steps` is the number of loops T; `early_exit_threshold` is the published code's default Q-exit threshold
    (1: full depth). Raises ValueError for unsupported values (indivisible heads, scaled RoPE, sliding window)."""

    model_type = "ouro"
    keys_to_ignore_at_inference = ["cache", "past_key_values"]

    vocab_size: int = 49152
    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 65536
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    tie_word_embeddings: bool = False
    rope_theta: float | int = 1_000_000.0
    rope_scaling: dict | None = None
    use_sliding_window: bool = False
    sliding_window: int | None = None
    max_window_layers: int = 28
    layer_types: list[str] | None = None
    attention_dropout: float | int = 0.0
    total_ut_steps: int = 4
    early_exit_threshold: float | int = 1.0
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    def __post_init__(self, **kwargs):
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"head_dim must be even, not {self.head_dim}: rotary embedding rotates pairs of dimensions"
            )
        if self.rope_scaling is not None:
            raise ValueError("rope_scaling is not supported: published Ouro checkpoints use plain RoPE")
        if self.use_sliding_window:
            raise ValueError("use_sliding_window is not supported: published Ouro checkpoints use full attention")
        if self.total_ut_steps < 1:
            raise ValueError(f"total_ut_steps must be at least 1, not {self.total_ut_steps}")
        self.layer_types = ["full_attention"] * self.num_hidden_layers
        super().__post_init__(**kwargs)

    @property
    def attention_shape(self) -> tuple[int, int, int]:
        """Query heads, heads of keys and values, and the width of each."""
        assert self.num_key_value_heads is not None and self.head_dim is not None, "set when the config was made"
        return self.num_attention_heads, self.num_key_value_heads, self.head_dim
