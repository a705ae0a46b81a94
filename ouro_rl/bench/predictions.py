"""The predicted value of each figure, written down before the first measurement and not changed since.

The cost model: a pass over n rows takes max((W + K) / bandwidth, FLOP / peak), with W = 170 MB of looped weights (84.9
M parameters in bf16) and K the keys and values that the rows read, 36,864 bytes per position; on two cores that read 22
GB/s and multiply at several hundred GFLOP/s if the passes are wide.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One ratio: its name in words, the required, target and stretch values, and the prediction with its reason."""

    words: str
    least: float
    target: float
    stretch: float
    predicted: float
    why: str
    percent: bool = False

    @property
    def larger_is_better(self) -> bool:
        return self.stretch > self.least


FIGURES = {
    "adaptive_vs_generate": Figure(
        words="adaptive engine against generate(), tokens/s while decoding",
        least=4.0, target=6.0, stretch=10.0, predicted=6.0,
        why="A prototype with packed weights and a paged attention kernel, but unfused element-wise work (35 % of its "
        "time), was 4.2 times as fast; fused layers should be worth 1.4.",
    ),
    "continuous_share_of_bound": Figure(
        words="continuous against own fixed 4, share of 4 / mean depth",
        least=0.92, target=0.97, stretch=0.99, predicted=0.96, percent=True,
        why="A loop costs the same on both sides. Adaptive, 25.6 tokens leave in every pass and not 64 in every "
        "fourth, so the head (12.6 MB, 0.6 ms of some 50) is read four times as often and multiplies 1.6 times as "
        "many rows a pass: 1 % each; drawing tokens in every pass costs as much again.",
    ),
    "continuous_vs_sync_b16": Figure(
        words="continuous against synchronous compaction, batch 16",
        least=1.15, target=1.3, stretch=1.4, predicted=1.4,
        why="At 16 rows and fewer a pass reads W whatever its rows: a token costs 4 W + 2.5 K = 822 MB when all wait "
        "for the deepest, 2.5 (W + K) = 567 MB when nobody does (K = 57 MB at context 96): 1.45, less some fixed "
        "cost of leaving.",
    ),
    "no_exit_overhead": Figure(
        words="slower than plain fixed 4 when no token exits",
        least=0.05, target=0.02, stretch=0.0, predicted=0.01, percent=True,
        why="The same code runs: the gate is read and recorded at fixed depth too.",
    ),
    "share_of_roofline": Figure(
        words="share of the roofline, batch 64",
        least=0.2, target=0.4, stretch=0.6, predicted=0.3, percent=True,
        why="The roofline of a pass is 18 ms (400 MB), 1,400 tokens/s; the prototype made 284, and fused layers should "
        "be worth 1.4 to 1.5.",
    ),
    "group_speedup": Figure(
        words="group of 16, prompt 256, 64 new tokens, against unshared",
        least=1.5, target=2.0, stretch=2.9, predicted=2.4,
        why="Unshared, 16,320 prompt rows (2.8 TFLOP, 4 s when wide) and 160 passes of 25 ms; shared, 1,020 rows and "
        "160 passes of 19 ms that read the prompt once: 8 s against 3.3.",
    ),
    "replay_time_ratio": Figure(
        words="replay: trainer's forward + backward at mean depth 2.5 against 4",
        least=0.75, target=0.68, stretch=0.64, predicted=0.70,
        why="Rows of all loops, with the prompt once at full depth: (252 + 2,560) / (252 + 4,096) = 0.647; head, "
        "embedding and the gradients' sums do not follow the depth, nor does the backward's dense attention.",
    ),
    "exact_cost": Figure(
        words="cost of exact, rollout and replay together",
        least=0.15, target=0.05, stretch=0.0, predicted=0.08, percent=True,
        why="A rollout of 64 rows fills its tiles; the replay's forward, a third of its time, multiplies in tiles of "
        "64 rows at half the rate of wide products.",
    ),
    "utilization_dealt": Figure(
        words="busy over wall of 2 actors, work dealt at the start",
        least=0.5, target=0.6, stretch=0.7, predicted=0.56, percent=True,
        why="Half of the answers are 8 times as long as the others and fall to one actor: the other works an eighth of "
        "the time, (1 + 1/8) / 2.",
    ),
    "utilization": Figure(
        words="busy over wall of 2 actors, work given to whoever is free",
        least=0.9, target=0.95, stretch=0.99, predicted=0.97, percent=True,
        why="24 groups; the last one that is given out takes 1/27 of the time of the call at most.",
    ),
    "publication_seconds": Figure(
        words="weights of 1.4 B parameters in bf16 to 2 actors of a node, seconds",
        least=3.0, target=2.0, stretch=1.2, predicted=1.8,
        why="2.87 GB are copied once into the store and once into each actor: 8.6 GB, 1.1 s at the 8 GB/s that two "
        "cores may copy; hashing them three times reads as much again, 0.7 s at 12 GB/s.",
    ),
    "publication_of_copies": Figure(
        words="the same, over three copies at the rate of memory",
        least=3.0, target=2.0, stretch=1.2, predicted=1.6,
        why="The hashes; the store's memory is mapped page by page.",
    ),
    "publication_memory": Figure(
        words="memory of a publication beside the models, in models",
        least=1.2, target=1.1, stretch=1.0, predicted=1.02,
        why="One copy in the store; what is sent is a view of the trainer's weights.",
    ),
    "kv_bytes_ratio": Figure(
        words="KV bytes at mean depth 2.5 against full",
        least=0.70, target=0.64, stretch=0.63, predicted=0.625,
        why="A page is one token at one loop and an exit copies nothing: 2.5 / 4.",
    ),
}  # fmt: skip
