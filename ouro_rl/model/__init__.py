"""Ouro for transformers. Importing this package registers `OuroConfig` and `OuroForCausalLM` with the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroCausalLMOutput, OuroForCausalLM, OuroModel, OuroModelOutput

AutoConfig.register("ouro", OuroConfig, exist_ok=True)
AutoModel.register(OuroConfig, OuroModel, exist_ok=True)
AutoModelForCausalLM.register(OuroConfig, OuroForCausalLM, exist_ok=True)

__all__ = ["OuroCausalLMOutput", "OuroConfig", "OuroForCausalLM", "OuroModel", "OuroModelOutput"]
