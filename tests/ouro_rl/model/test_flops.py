"""Operations by the formula, against those that torch counts in the model itself."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.flops import answer_flops, context_flops, loop_flops
from ouro_rl.model.modeling_ouro import OuroForCausalLM

SHAPE = OuroConfig(
    vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, head_dim=4, total_ut_steps=4,
)  # fmt: skip


def test_by_hand():
    # A layer: q and o 16 x 16, k and v 16 x 8, MLP 3 times 16 x 24; the gate 16.
    assert loop_flops(SHAPE) == 3 * 2 * (2 * 256 + 2 * 128 + 3 * 384) + 2 * 16
    assert context_flops(SHAPE) == 3 * 2 * 2 * 16
    # Prompt of 3: two positions at 4 loops reading 1 and 2; the third runs 2 loops and reads 3, the next 1 loop, 4.
    head = 2 * 2 * 16 * 11
    expected = (8 + 3) * loop_flops(SHAPE) + (4 * 3 + 2 * 3 + 1 * 4) * context_flops(SHAPE) + head
    assert answer_flops(SHAPE, 3, [2, 1], prompt_loops=4) == expected
    assert answer_flops(SHAPE, 3, [2, 1], prompt_loops=4, head_every_loop=True) == expected + head // 2
    assert answer_flops(SHAPE, 1, [1], prompt_loops=4) == loop_flops(SHAPE) + context_flops(SHAPE) + head // 2


@pytest.mark.usefixtures("plain_torch")
def test_products_are_those_that_torch_counts():
    """One token, where attention reads one position: all that is left are products."""
    model = OuroForCausalLM(SHAPE).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.tensor([[5]]))
    formula = answer_flops(SHAPE, 1, [4], prompt_loops=4)
    assert counter.get_total_flops() == pytest.approx(formula, rel=0.02)
