"""Chunked log-probs of the trainer against the plain computation: values, gradients and peak memory."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ouro_rl.core.sampling_params import DepthPolicy, TokenFilters
from ouro_rl.model.policy.token_distribution import UNFILTERED, Recorded, chosen_logprobs, entropy, token_distribution
from ouro_rl.model.replay_probes import Probed
from ouro_rl.training.token_logprobs import CHUNK_BYTES, ROW_STEP, Completions, HeadReader, TokenReader, chunk_rows
from tests.references.tiny_models import random_model

FILTERS = [
    TokenFilters(),
    TokenFilters(top_k=5),
    TokenFilters(top_p=0.8),
    TokenFilters(min_p=0.1),
    TokenFilters(top_k=9, top_p=0.9, min_p=0.05),
]


def batch(rows, vocab=41, hidden=32, filters=UNFILTERED, seed=0, dtype=torch.float32):
    model = random_model(seed, vocab=vocab, hidden=hidden).train()
    model.model.compute_dtype = dtype
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(rows, hidden, generator=generator).to(dtype)
    tokens = torch.randint(0, vocab, (rows,), generator=generator)
    with torch.no_grad():
        sizes = token_distribution(model.row_logits(states), 0.8, filters)[1]
    sizes = torch.zeros_like(tokens) if sizes is None else sizes
    return model, states.requires_grad_(), Recorded(token_ids=tokens, support_sizes=sizes)


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_give_the_plain_values_and_gradients(filters, dtype):
    model, states, recorded = batch(300, filters=filters, dtype=dtype)
    weights = torch.linspace(-1, 1, 300)

    log_probs, _ = token_distribution(model.row_logits(states), 0.8, filters, recorded=recorded)
    expected, nats = chosen_logprobs(log_probs, recorded.token_ids), entropy(log_probs.detach())
    (weights * expected).sum().backward()
    wanted_states, wanted_head = states.grad.clone(), model.lm_head.weight.grad.clone()

    for rows in (None, 64, 128, 300):
        states.grad = model.lm_head.weight.grad = None
        reader = TokenReader(recorded=recorded, temperature=0.8, filters=filters, chunk_rows=rows)
        got, got_nats = reader(model, states)
        assert torch.equal(got, expected) and torch.equal(got_nats, nats) and not got_nats.requires_grad
        (weights * got).sum().backward()
        tolerance = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(states.grad, wanted_states, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(model.lm_head.weight.grad, wanted_head, atol=tolerance, rtol=tolerance)


def test_the_head_is_batch_invariant():
    model, states, recorded = batch(200)
    whole, _ = TokenReader(recorded=recorded, temperature=1.0)(model, states)
    for rows in (torch.tensor([7]), torch.arange(3, 90), torch.randperm(200)):
        part = Recorded(token_ids=recorded.token_ids[rows], support_sizes=recorded.support_sizes[rows])
        got, _ = TokenReader(recorded=part, temperature=1.0, chunk_rows=64)(model, states[rows])
        assert torch.equal(got, whole[rows])


def test_processors_see_each_rows_prefix_in_any_chunks(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "def ban_the_last(logits, ids):\n    for row, i in enumerate(ids):\n        logits[row, i[-1]] = -1e9\n"
        "        logits[row, 0] = logits[row, 0] + len(i)\n    return logits\n"
    )
    filters = TokenFilters(logit_processors=(f"{path}:ban_the_last",))
    completions = Completions(prompts=[[1], [2, 3], [4]], completions=[[5] * 70, [], list(range(6, 36))])
    prefixes = completions.prefixes(range(100))
    assert prefixes[0] == [1] and prefixes[69] == [1, *[5] * 69] and prefixes[70] == [4] and prefixes[71] == [4, 6]
    assert completions.prefixes(range(68, 73)) == prefixes[68:73] and len(prefixes) == 100
    model, states, recorded = batch(100)
    expected, _ = token_distribution(model.row_logits(states), 1.0, filters, prefixes=prefixes, recorded=recorded)
    for rows in (64, 100):
        reader = TokenReader(
            recorded=recorded, temperature=1.0, filters=filters, completions=completions, chunk_rows=rows
        )
        got, _ = reader(model, states)
        assert torch.equal(got, chosen_logprobs(expected, recorded.token_ids))
    got.sum().backward()
    assert states.grad.isfinite().all() and states.grad.abs().sum() > 0


class LiveBytes(TorchDispatchMode):
    """Peak bytes of live tensors created under this mode, by storage; and the largest single one."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = self.largest = 0
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.seen and storage.nbytes():
                    self.seen.add(key)
                    self.live += storage.nbytes()
                    self.largest = max(self.largest, storage.nbytes())
                    self.peak = max(self.peak, self.live)
                    weakref.finalize(storage, self._free, key, storage.nbytes())
        return out

    def _free(self, key, size):
        self.seen.discard(key)
        self.live -= size


@pytest.mark.parametrize("filters", [TokenFilters(), TokenFilters(top_p=0.9)], ids=str)
def test_memory_is_bounded_by_a_chunk(filters):
    """Forward and backward over 1,024 tokens of a vocabulary of 49,152: the logits of all of them would be 201 MB."""
    vocab, rows, chunk = 49_152, 1024, 64
    model, states, recorded = batch(rows, vocab=vocab, hidden=16)
    recorded = Recorded(token_ids=recorded.token_ids, support_sizes=torch.full((rows,), 500))
    with torch.no_grad():
        model.row_logits(states[:1])  # packs the weights
    peaks = {}
    for name, size in (("chunks", chunk), ("whole", rows)):
        model.lm_head.weight.grad = states.grad = None
        with LiveBytes() as mode:
            reader = TokenReader(recorded=recorded, temperature=0.8, filters=filters, chunk_rows=size)
            reader(model, states)[0].sum().backward()
        peaks[name] = mode.peak, mode.largest
    of_chunk, head = 4 * chunk * vocab, 4 * vocab * 16
    print(
        f"{filters}: peak {peaks['chunks'][0] / 2**20:.0f} MiB in chunks of {chunk}, "
        f"{peaks['whole'][0] / 2**20:.0f} MiB whole"
    )
    assert peaks["chunks"][1] <= of_chunk  # no single tensor is larger than a chunk's
    assert peaks["chunks"][0] <= 7 * of_chunk + 4 * head
    assert peaks["whole"][0] > 3 * 4 * rows * vocab  # the measurement detects the unchunked peak


@pytest.mark.parametrize("filters", [TokenFilters(), TokenFilters(top_k=5)], ids=str)
def test_probed_tokens_are_read_at_every_loop(filters):
    """Against the whole [T, k] computed at once; at a token's own depth, the recorded support counts."""
    model, states, recorded = batch(90, filters=filters)
    depths = torch.randint(1, 4, (90,), generator=torch.Generator().manual_seed(1))
    numbers = torch.arange(0, 90, 2)
    loop_states = torch.randn(3, 45, 32, generator=torch.Generator().manual_seed(2))
    loop_states[depths[numbers] - 1, torch.arange(45)] = states.detach()[numbers]
    loop_states.requires_grad_()
    reader = HeadReader(
        tokens=TokenReader(recorded=recorded, temperature=0.8, filters=filters, chunk_rows=64),
        depths=depths,
        probed=numbers,
        depth_policy=DepthPolicy(gate_temperature=2.0),
    )
    assert reader(model, states, None).probes is None
    reading = reader(model, states, Probed(states=loop_states, gate_logits=torch.ones(3, 45)))
    assert torch.equal(reading.logprobs, reader.tokens(model, states)[0])
    found = reading.probes.token_logprobs

    anew, _ = token_distribution(model.row_logits(loop_states.flatten(0, 1)), 0.8, filters)
    expected = chosen_logprobs(anew, recorded.token_ids[numbers].repeat(3)).view(3, 45)
    own = depths[numbers] == torch.tensor([[1], [2], [3]])
    assert torch.equal(found[~own], expected[~own])
    assert torch.equal(found.T[own.T], reading.logprobs[numbers])
    assert bool(expected.isinf().any()) == filters.restrict  # some tokens are outside of another loop's support
    assert torch.equal(reading.probes.tokens, numbers) and bool((reading.probes.gate_logits == 0.5).all())
    gates = model.model.gate_logits(loop_states.detach()) / 2
    torch.testing.assert_close(reading.probes.detached_gate_logits, gates)
    reading.probes.detached_gate_logits.sum().backward(retain_graph=True)
    assert loop_states.grad is None and model.model.early_exit_gate.weight.grad.abs().sum() > 0
    finite = found.isfinite()
    found[finite].sum().backward()
    assert (loop_states.grad.abs().sum(-1) > 0).equal(finite & ~own)
    assert (states.grad.abs().sum(-1) > 0).equal(torch.arange(90) % 2 == 0)


def test_processors_see_the_prefix_of_each_probed_token():
    completions = Completions(prompts=[[1], [2, 3]], completions=[[5, 6], [7, 8, 9]])
    assert completions.prefixes([4, 0, 2, 2]) == [[2, 3, 7, 8], [1], [2, 3], [2, 3]]


def test_chunks_are_bounded_in_bytes():
    for vocab in (300, 8192, 49_152, 1_000_000):
        rows = chunk_rows(vocab, torch.device("cpu"))
        assert rows % ROW_STEP == 0 and (rows == ROW_STEP or 4 * rows * vocab <= CHUNK_BYTES["cpu"])
    assert chunk_rows(49_152, torch.device("cpu")) == 320
