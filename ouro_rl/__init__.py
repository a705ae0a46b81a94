"""ouro-rl: reinforcement learning for looped language models whose depth varies per token.

Importing this package registers `OuroConfig` and `OuroForCausalLM` with the Auto classes of transformers, but does not
import torch or transformers until they are used, so that the command line reports a wrong argument in well under a
second. It also sets how OpenMP's threads wait (`OMP_WAIT_POLICY`, `GOMP_SPINCOUNT`), unless the environment says so:
see `ouro_rl.core.thread_waits`.
"""

import importlib
import sys
from typing import Any

import wrapt

from ouro_rl.core.thread_waits import wait_passively

__version__ = "0.1.0"

wait_passively()  # before torch is loaded


@wrapt.when_imported("transformers.models.auto.configuration_auto")
def _register_config(module: Any) -> None:
    from ouro_rl.model.configuration_ouro import OuroConfig

    module.AutoConfig.register("ouro", OuroConfig, exist_ok=True)


@wrapt.when_imported("transformers.models.auto.modeling_auto")
def _register_models(module: Any) -> None:
    # A part of the model may be what imports transformers, and is incomplete then: `modeling_ouro` registers later.
    if not any(name.startswith("ouro_rl.") and _is_initializing(part) for name, part in list(sys.modules.items())):
        import ouro_rl.model.modeling_ouro  # noqa: F401 (registers on import)


def _is_initializing(module: Any) -> bool:
    return getattr(getattr(module, "__spec__", None), "_initializing", False)


def __getattr__(name: str) -> Any:
    if name in {"OuroConfig", "OuroForCausalLM", "OuroModel"}:
        from ouro_rl.model import modeling_ouro

        return getattr(modeling_ouro, name)
    if name in {"load", "grade", "train", "ExitRule"}:
        return getattr(importlib.import_module("ouro_rl.cli.interface"), name)  # by name: everything else lies below it
    raise AttributeError(f"module 'ouro_rl' has no attribute {name!r}")
