"""The processes that train together."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import PartialState


def training_processes(**settings: Any) -> PartialState:
    """This process among those that were started together. Without a GPU accelerate has to be told so, or every process
    takes itself for the only one."""
    return PartialState(cpu=not torch.cuda.is_available(), **settings)
