"""The record of a completion, per token: as a value when it has ended or was preempted, as tensors while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ouro_rl.core.rollout import FinishReason
from ouro_rl.core.sampling_params import NO_DEPTH


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A whole completion, or a preempted one so far. The fields have the same meaning as in `Rollout`."""

    token_ids: tuple[int, ...] = ()
    token_logprobs: tuple[float, ...] = ()
    depths: tuple[int, ...] = ()
    depth_logprobs: tuple[float, ...] = ()
    exit_shares: bytes = b""
    support_sizes: tuple[int, ...] = ()
    forced: tuple[int, int] = (0, 0)
    finish_reason: FinishReason | None = None
    """None: it has not ended."""
    stop_string: str | None = None


@dataclass(frozen=True, kw_only=True)
class CompletionTensors:
    """The completions in all slots, [slots, max_new_tokens] each. A row is valid up to the length of its completion."""

    token_ids: Tensor
    """int64."""
    token_logprobs: Tensor
    """float32, nats."""
    depths: Tensor
    """int64, 1-based; `NO_DEPTH` where nothing was recorded."""
    depth_logprobs: Tensor
    """float32, nats."""
    exit_shares: Tensor
    """uint8 [slots, max_new_tokens, loops]; beyond a token's depth, what the slot's last sample left there."""
    support_sizes: Tensor | None
    """int64; None where no filter restricts the tokens."""

    @staticmethod
    def empty(slots: int, max_new_tokens: int, loops: int, device: torch.device, *, support_sizes: Tensor | None):
        shape = (slots, max_new_tokens)
        return CompletionTensors(
            token_ids=torch.zeros(shape, dtype=torch.int64, device=device),
            token_logprobs=torch.zeros(shape, dtype=torch.float32, device=device),
            depths=torch.full(shape, NO_DEPTH, dtype=torch.int64, device=device),
            depth_logprobs=torch.zeros(shape, dtype=torch.float32, device=device),
            exit_shares=torch.zeros(*shape, loops, dtype=torch.uint8, device=device),
            support_sizes=support_sizes,
        )

    def read(self, slots: Tensor, lengths: Sequence[int]) -> list[Completion]:
        """The completions in `slots` int64 [n], each up to its length."""

        def column(tensor: Tensor) -> list[tuple]:
            rows = tensor.index_select(0, slots).tolist()
            return [tuple(row[:length]) for row, length in zip(rows, lengths, strict=True)]

        sizes = [()] * len(lengths) if self.support_sizes is None else column(self.support_sizes)
        columns = (self.token_ids, self.token_logprobs, self.depths, self.depth_logprobs)
        shares = self._shares(slots, lengths)
        return [
            Completion(
                token_ids=token_ids, token_logprobs=token_logprobs, depths=depths, depth_logprobs=depth_logprobs,
                exit_shares=exit_shares, support_sizes=support_sizes,
            )
            for token_ids, token_logprobs, depths, depth_logprobs, exit_shares, support_sizes in zip(
                *map(column, columns), shares, sizes, strict=True
            )
        ]  # fmt: skip

    def _shares(self, slots: Tensor, lengths: Sequence[int]) -> list[bytes]:
        depths, shares = self.depths.index_select(0, slots), self.exit_shares.index_select(0, slots)
        loops = torch.arange(1, shares.shape[2] + 1, device=shares.device)
        kept = torch.where(loops <= depths.unsqueeze(2), shares, 0).cpu()
        return [row[:length].numpy().tobytes() for row, length in zip(kept, lengths, strict=True)]

    def write(self, slot: int, completion: Completion) -> None:
        """Write a completion at the beginning of a slot."""

        def put(tensor: Tensor, values: Sequence[float]) -> None:
            tensor[slot, : len(values)] = torch.tensor(values, dtype=tensor.dtype)

        put(self.token_ids, completion.token_ids)
        put(self.token_logprobs, completion.token_logprobs)
        put(self.depths, completion.depths)
        put(self.depth_logprobs, completion.depth_logprobs)
        count, loops = len(completion.token_ids), self.exit_shares.shape[2]
        shares = torch.tensor(list(completion.exit_shares), dtype=torch.uint8).view(count, loops)
        self.exit_shares[slot, :count] = shares
        if self.support_sizes is not None:
            put(self.support_sizes, completion.support_sizes)
