"""Ouro for transformers. Importing this package registers the models with the Auto classes (the config: `ouro_rl`)."""

from transformers import AutoModel, AutoModelForCausalLM

from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroCausalLMOutput, OuroForCausalLM, OuroModel, OuroModelOutput

AutoModel.register(OuroConfig, OuroModel, exist_ok=True)
AutoModelForCausalLM.register(OuroConfig, OuroForCausalLM, exist_ok=True)

__all__ = ["OuroCausalLMOutput", "OuroConfig", "OuroForCausalLM", "OuroModel", "OuroModelOutput"]
