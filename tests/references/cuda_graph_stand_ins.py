"""Stand-ins for static passes on a GPU: attention that does not read lengths, and a graph that repeats operations."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ouro_rl.kernels.gpu.weights import product_by
from rollout_workers.engine.graphs.cuda_graph import WARM_UPS
from rollout_workers.engine.kv_cache import NO_PAGE
from rollout_workers.engine.sampling.completion import CompletionTensors


class FullRowAttention:
    """Static attention like the Triton kernel's, in plain torch: every row reads its whole block-table row, masked."""

    needs_host_sync = False

    def __init__(self, cache):
        self.cache = cache

    def plan(self, rows):
        lines = self.cache.table.flatten(0, 1).index_select(0, self.cache.table_rows(rows.slots, rows.loops))
        read = torch.arange(lines.shape[1], device=lines.device) < rows.contexts.unsqueeze(1)
        pages = lines.masked_fill(~read, NO_PAGE)

        def attend(q, keys, values, scaling):
            k, v = (
                pool.index_select(0, pages.flatten()).view(*pages.shape, *pool.shape[1:]) for pool in (keys, values)
            )
            mixed = F.scaled_dot_product_attention(
                q[: len(pages)].unsqueeze(2),
                k.transpose(1, 2),
                v.transpose(1, 2),
                attn_mask=read[:, None, None],
                scale=scaling,
                enable_gqa=True,
            )
            return F.pad(mixed.squeeze(2), (0, 0, 0, 0, 0, len(q) - len(pages)))

        return attend


class PlainKernels:
    """Kernels in plain torch that keep copies of weights, as the GPU kernels do. Used with `FullRowAttention`."""

    needs_host_sync = False

    def product(self, weights, dtype, *, batch_invariant, old=None):
        return product_by(F.linear, weights, dtype, old)

    def stack(self, *_, **__):
        return None

    def rms_norm(self, x, weight, eps):
        return F.rms_norm(x, weight.shape, weight, eps)

    def silu_mul(self, gate, up):
        return F.silu(gate) * up

    def rotate(self, x, cosines, sines):
        (first, second), cosines, sines = x.chunk(2, dim=-1), cosines.unsqueeze(1), sines.unsqueeze(1)
        return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


class RecordedPass:
    """A stand-in for a CUDA graph: records the operations of one run with their tensors, and replays exactly these.

    Values that Python computed from a tensor (a length, a number of rows) stay as recorded, and so become wrong."""

    made = 0
    replays = 0

    def __init__(self, function):
        RecordedPass.made += 1
        self.function, self.runs, self.operations = function, 0, []

    def __call__(self):
        self.runs += 1
        if self.runs <= WARM_UPS:
            self.function()
        elif self.runs == WARM_UPS + 1:
            with _Recorder(self.operations):
                self.function()
        else:
            self._replay()

    def _replay(self):
        RecordedPass.replays += 1
        made = {}
        for operation, arguments, keywords, results in self.operations:
            arguments, keywords = tree_map(
                lambda item: made.get(id(item), item) if isinstance(item, torch.Tensor) else item, (arguments, keywords)
            )
            again = operation(*arguments, **keywords)
            for old, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor):
                    made[id(old)] = new


class _Recorder(TorchDispatchMode):
    def __init__(self, operations):
        super().__init__()
        self.operations = operations

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        results = operation(*arguments, **(keywords or {}))
        self.operations.append((operation, arguments, keywords or {}, results))
        return results


def move_to_meta(thing):
    """Move every tensor in the attributes of an object, and in their lists, to the meta device.

    Code that reads a tensor's values, or copies values from the host, then fails."""
    for name, value in vars(thing).items():
        if isinstance(value, torch.Tensor):
            setattr(thing, name, value.to("meta"))
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], torch.Tensor):
            setattr(thing, name, type(value)(part.to("meta") for part in value))
        elif isinstance(value, CompletionTensors):
            moved = {field: tensor.to("meta") for field, tensor in vars(value).items() if tensor is not None}
            setattr(thing, name, replace(value, **moved))
