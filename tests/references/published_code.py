"""A stand-in for the code that comes with a published checkpoint: two files that transformers loads by `auto_map`."""

from __future__ import annotations

import json
from pathlib import Path

AUTO_MAP = {
    "AutoConfig": "configuration_ouro.OuroConfig",
    "AutoModelForCausalLM": "modeling_ouro.OuroForCausalLM",
}
CONFIGURATION = """
from transformers import PretrainedConfig


class OuroConfig(PretrainedConfig):
    model_type = "ouro"

    def __init__(self, vocab_size=1, hidden_size=1, **kwargs):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        super().__init__(**kwargs)
"""
MODELING = '''
import torch
from transformers import PreTrainedModel

from .configuration_ouro import OuroConfig


class Inner(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.early_exit_gate = torch.nn.Linear(config.hidden_size, 1)


class OuroForCausalLM(PreTrainedModel):
    """The embedding, the gate and the head are enough to see whose weights were loaded."""

    config_class = OuroConfig
    _keys_to_ignore_on_load_unexpected = [r"model\\.layers.*", r"model\\.norm.*"]

    def __init__(self, config):
        super().__init__(config)
        self.model = Inner(config)
        self.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
'''


def add_code(folder: Path) -> None:
    """Make a checkpoint one that brings its own code along."""
    (folder / "configuration_ouro.py").write_text(CONFIGURATION)
    (folder / "modeling_ouro.py").write_text(MODELING)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": AUTO_MAP}))
