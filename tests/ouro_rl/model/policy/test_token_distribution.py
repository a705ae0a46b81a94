"""The token distribution: against a slow reference, bitwise equal between sampling and replay, and statistically."""

import math
import textwrap
from itertools import product

import pytest
import torch

from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.sampling_params import TokenFilters
from ouro_rl.model.policy.counter_rng import uniforms
from ouro_rl.model.policy.token_distribution import (
    NUCLEUS_CANDIDATES,
    Recorded,
    chosen_logprobs,
    entropy,
    replay_threshold,
    sample_tokens,
    token_distribution,
)

FILTERS = [
    TokenFilters(top_k=5),
    TokenFilters(top_p=0.7),
    TokenFilters(min_p=0.1),
    TokenFilters(top_k=7, top_p=0.8),
    TokenFilters(top_k=9, min_p=0.05),
    TokenFilters(top_p=0.9, min_p=0.2),
    TokenFilters(top_k=6, top_p=0.9, min_p=0.15),
    TokenFilters(top_k=1),
    TokenFilters(top_p=1e-6),
    TokenFilters(top_k=1000),
]
NAMES = [f"k{f.top_k} p{f.top_p:g} m{f.min_p:g}" for f in FILTERS]
TEMPERATURES = [1.0, 0.6, 1.7]


def some_logits(rows=64, vocab=50, seed=0, ties=False, scale=2.0):
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale
    return (logits * 2).round() / 2 if ties else logits


def by_hand(row, temperature, filters):
    """Kept token ids, in plain Python: top-k, then top-p of the rest, then min-p. Ties with the last kept token are
    kept."""
    scaled = [x / (temperature or 1.0) for x in row]
    order = sorted(range(len(row)), key=lambda i: -scaled[i])
    kept = order
    if filters.top_k and filters.top_k < len(order):
        kept = [i for i in order if scaled[i] >= scaled[order[filters.top_k - 1]]]
    if filters.top_p < 1:
        weights = [math.exp(scaled[i] - scaled[kept[0]]) for i in kept]
        mass, count = 0.0, 0
        while count < len(kept) and mass < filters.top_p * math.fsum(weights):
            mass, count = mass + weights[count], count + 1
        kept = [i for i in kept if scaled[i] >= scaled[kept[count - 1]]]
    if filters.min_p > 0:
        kept = [i for i in kept if scaled[i] >= scaled[order[0]] + math.log(filters.min_p)]
    return set(kept)


@pytest.mark.parametrize("filters", FILTERS, ids=NAMES)
@pytest.mark.parametrize("temperature, ties", [*product(TEMPERATURES, (False, True)), (0.0, False)])
def test_the_filters_match_the_reference(filters, temperature, ties):
    logits = some_logits(ties=ties)
    log_probs, sizes = token_distribution(logits, temperature, filters)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(64), atol=1e-5)
    for row, got, size in zip(logits.tolist(), log_probs, sizes.tolist(), strict=True):
        kept = by_hand(row, temperature, filters)
        assert set(got.isfinite().nonzero().flatten().tolist()) == kept and size == len(kept)
        expected = torch.tensor([row[i] for i in sorted(kept)]).double() / (temperature or 1.0)
        torch.testing.assert_close(got[sorted(kept)].double(), expected.log_softmax(0), atol=1e-5, rtol=1e-5)


def test_without_filters_it_is_the_softmax():
    logits = some_logits()
    log_probs, sizes = token_distribution(logits, 1.0)
    assert sizes is None and torch.equal(log_probs, logits.log_softmax(-1))
    assert torch.equal(token_distribution(logits, 0.0)[0], log_probs)  # greedy reports temperature 1
    assert torch.equal(token_distribution(logits.bfloat16(), 0.7)[0], (logits.bfloat16().float() / 0.7).log_softmax(-1))


@pytest.mark.parametrize("vocab", [100, NUCLEUS_CANDIDATES[0] * 3, NUCLEUS_CANDIDATES[1] * 2])
def test_a_nucleus_of_any_width(vocab):
    """A narrow nucleus is found among a few candidates, a flat row needs the whole vocabulary: all in one batch."""
    logits = some_logits(8, vocab) * torch.tensor([0.0, 0.01, 0.1, 0.5, 1, 2, 5, 20]).unsqueeze(1)
    for top_p in (0.5, 0.99, 0.999999):
        _, sizes = token_distribution(logits, 1.0, TokenFilters(top_p=top_p))
        for row, size in zip(logits, sizes.tolist(), strict=True):
            mass = row.double().softmax(0).sort(descending=True).values.cumsum(0)
            assert mass[size - 1] >= top_p - 1e-5
            assert size == 1 or mass[size - 2] < top_p + 1e-5 or not row.any()  # the flat row is one tie
    assert token_distribution(logits[:1], 1.0, TokenFilters(top_p=0.1))[1].item() == vocab  # all tied


@pytest.mark.parametrize("filters", FILTERS, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_replay_gives_bitwise_the_log_probs_of_sampling_in_any_batch(filters, dtype, temperature):
    logits = some_logits(70, 3000, ties=dtype == torch.float32).to(dtype)
    log_probs, sizes = token_distribution(logits, temperature, filters)
    tokens = sample_tokens(log_probs, torch.rand(70, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    expected = chosen_logprobs(log_probs, tokens)
    assert expected.isfinite().all()
    order = torch.randperm(70, generator=torch.Generator().manual_seed(2))
    for rows in (torch.arange(70), order[:33], order[33:34]):
        alone, alone_sizes = token_distribution(logits[rows], temperature, filters)
        assert torch.equal(alone, log_probs[rows]) and torch.equal(alone_sizes, sizes[rows])
        recorded = Recorded(token_ids=tokens[rows], support_sizes=sizes[rows])
        replayed, _ = token_distribution(logits[rows], temperature, filters, recorded=recorded)
        assert torch.equal(replayed, log_probs[rows])
        assert torch.equal(chosen_logprobs(replayed, tokens[rows]), expected[rows])


@pytest.mark.parametrize("filters", FILTERS, ids=NAMES)
def test_rounding_differences_in_logits_stay_small(filters):
    """Logits that differ by rounding: filters applied again drop or add tokens at the edge, the recorded size does
    not."""
    logits = some_logits(4000, 50)
    log_probs, sizes = token_distribution(logits, 1.0, filters)
    tokens = sample_tokens(log_probs, torch.rand(4000, dtype=torch.float64))
    noise = 1e-4 * torch.randn(4000, 50, generator=torch.Generator().manual_seed(5))
    recorded = Recorded(token_ids=tokens, support_sizes=sizes)
    replayed, _ = token_distribution(logits + noise, 1.0, filters, recorded=recorded)
    gap = (chosen_logprobs(replayed, tokens) - chosen_logprobs(log_probs, tokens)).abs()
    assert gap.max() <= 2e-3
    if filters in (TokenFilters(top_p=0.7), TokenFilters(min_p=0.1)):
        anew = chosen_logprobs(token_distribution(logits + noise, 1.0, filters)[0], tokens)
        assert (anew - chosen_logprobs(log_probs, tokens)).abs().max() > 2e-3  # what recording the size avoids


def test_the_recorded_token_is_always_possible():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    recorded = Recorded(token_ids=torch.tensor([3]), support_sizes=torch.tensor([2]))
    log_probs, _ = token_distribution(logits, 1.0, TokenFilters(top_k=2), recorded=recorded)
    assert log_probs.isfinite().tolist() == [[True, False, False, True]]
    assert log_probs[0, 3].item() == pytest.approx(-math.log(math.exp(3) + 1))
    recorded = Recorded(token_ids=torch.tensor([3]), support_sizes=torch.tensor([1]))
    log_probs, _ = token_distribution(logits, 1.0, TokenFilters(top_k=1), recorded=recorded)
    assert log_probs[0].tolist() == [-math.inf, -math.inf, -math.inf, 0]


@pytest.mark.parametrize("filters", FILTERS[:7], ids=NAMES[:7])
def test_the_gradient_is_that_of_the_renormalized_softmax(filters):
    logits = some_logits(6, 20).double().float().requires_grad_()
    with torch.no_grad():
        log_probs, sizes = token_distribution(logits, 0.7, filters)
        tokens = log_probs.argmax(-1)
    recorded = Recorded(token_ids=tokens, support_sizes=sizes)
    chosen_logprobs(token_distribution(logits, 0.7, filters, recorded=recorded)[0], tokens).sum().backward()
    probs = log_probs.exp()
    expected = (torch.nn.functional.one_hot(tokens, 20) - probs) / 0.7
    torch.testing.assert_close(logits.grad, expected, atol=1e-5, rtol=1e-5)
    assert (logits.grad[log_probs.isinf()] == 0).all()


def test_the_threshold_of_a_replay():
    values = torch.tensor([[1.0, 4.0, 4.0, 2.0], [0.0, -1.0, -torch.inf, 3.0]])

    def thresholds(tokens, sizes, rows=slice(None)):
        recorded = Recorded(
            token_ids=torch.tensor(tokens, dtype=torch.long), support_sizes=torch.tensor(sizes, dtype=torch.long)
        )
        return replay_threshold(values[rows], recorded).tolist()

    for size, expected in ((1, [4, 3]), (2, [4, 0]), (3, [2, -1]), (4, [-math.inf, -math.inf])):
        assert thresholds([1, 3], [size, size]) == expected
    assert thresholds([0, 0], [4, 1]) == [-math.inf, math.inf]
    assert thresholds([3, 2], [2, 3]) == [4, 0]
    assert thresholds([], [], slice(0, 0)) == []


def test_entropy_of_filtered_distributions():
    log_probs, _ = token_distribution(torch.zeros(1, 8), 1.0)
    assert entropy(log_probs).item() == pytest.approx(math.log(8))
    log_probs, _ = token_distribution(torch.tensor([[5.0, 5.0, 1.0, 0.0]]), 1.0, TokenFilters(top_k=2))
    assert entropy(log_probs).item() == pytest.approx(math.log(2))


def test_no_token_of_probability_0_is_sampled():
    log_probs, _ = token_distribution(some_logits(200, 50), 1.0, TokenFilters(top_k=3))
    for uniform in (0.0, 1 - 2**-53, 1.0):
        tokens = sample_tokens(log_probs, torch.full((200,), uniform, dtype=torch.float64))
        assert chosen_logprobs(log_probs, tokens).isfinite().all()


def normal_of_chi_square(counts, probs):
    """Wilson-Hilferty: the cube root of chi-square / freedom is nearly normal."""
    expected = probs * counts.sum()
    keep = expected >= 5
    statistic, freedom = ((counts - expected) ** 2)[keep].div(expected[keep]).sum().item(), int(keep.sum()) - 1
    return ((statistic / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / (2 / (9 * freedom)) ** 0.5


@pytest.mark.parametrize("filters", [TokenFilters(), *FILTERS[:7]], ids=["none", *NAMES[:7]])
def test_draws_follow_the_distribution(filters):
    """20,000 draws with counter-based random numbers against the recorded distribution."""
    logits = some_logits(1, 50, seed=4, scale=1.0).expand(20_000, -1)
    log_probs, _ = token_distribution(logits, 1.3, filters)
    tokens = sample_tokens(log_probs, uniforms(torch.arange(20_000), torch.full((20_000,), 3), 0))
    counts, probs = tokens.bincount(minlength=50).double(), log_probs[0].double().exp()
    assert not counts[probs == 0].any()
    assert normal_of_chi_square(counts, probs) < 3.3


PROCESSORS = """
    import torch

    def ban_repeats(logits, token_ids):
        for row, ids in enumerate(token_ids):
            logits[row, ids[-1]] = -torch.inf
        return logits

    def halve(logits, token_ids):
        return logits / 2

    def everything(logits, token_ids):
        return torch.full_like(logits, -torch.inf)

    def wrong_shape(logits, token_ids):
        return logits[:, :3]

    def nothing(logits, token_ids):
        pass

    def broken(logits, token_ids):
        raise KeyError("gone")
"""


@pytest.fixture
def processors(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(PROCESSORS))
    return lambda *names: TokenFilters(logit_processors=tuple(f"{path}:{name}" for name in names), top_k=4)


def test_processors_come_first_and_see_the_tokens_so_far(processors):
    logits, prefixes = some_logits(3, 10), [[1, 2], [5], [0, 9]]
    log_probs, sizes = token_distribution(logits.clone(), 0.5, processors("ban_repeats", "halve"), prefixes=prefixes)
    banned = logits.clone()
    banned[[0, 1, 2], [2, 5, 9]] = -torch.inf
    expected, _ = token_distribution(banned, 1.0, TokenFilters(top_k=4))
    torch.testing.assert_close(log_probs, expected)
    assert sizes.tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    "name, message",
    [
        ("everything", "left a row without"),
        ("wrong_shape", r"returned a tensor \[3, 3\]"),
        ("nothing", "returned NoneType"),
        ("broken", "raised KeyError: 'gone'"),
    ],
)
def test_a_bad_processor_is_named(processors, name, message):
    with pytest.raises(RunError, match=rf"rollout.logit_processors: .*mine.py:{name} {message}"):
        token_distribution(some_logits(3, 10), 1.0, processors(name), prefixes=[[1]] * 3)


@pytest.mark.parametrize(
    "name, message",
    [
        ("nowhere.py:f", "there is no file nowhere.py"),
        ("ouro_rl.nothing:f", "No module named"),
        ("ouro_rl.model.policy.token_distribution:entropi", "'entropy'"),
        ("ouro_rl.model.policy.token_distribution", "no module is named"),
    ],
)
def test_a_processor_that_does_not_exist(name, message):
    with pytest.raises(UserError, match=message):
        token_distribution(some_logits(1, 4), 1.0, TokenFilters(logit_processors=(name,)), prefixes=[[1]])


def test_top_p_next_to_1_leaves_top_k_as_it_is():
    """With rounding, the probabilities of the top-k tokens may sum to less than top_p."""
    logits = torch.randn(256, 500, generator=torch.Generator().manual_seed(0)) * 5 + 30
    _, sizes = token_distribution(logits, 1.0, TokenFilters(top_k=5, top_p=0.9999999))
    assert sizes.max() == 5
