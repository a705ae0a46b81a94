"""The objective with probes, as the trainer calls it: by enumeration, and by hand."""

from dataclasses import replace

import pytest
import torch

from ouro_rl.core.kv_rule import KVRule
from ouro_rl.model.policy.exit_gate import decision_logprobs, exit_log_pdf
from ouro_rl.training.objective.objective import Objective
from ouro_rl.training.objective.records import Probes, Replayed
from ouro_rl.training.warmstart.losses import stage_two_losses
from tests.references.enumeration import LOOPS, VOCAB, advantages, enumeration_model, gradient, replay_outcomes
from tests.references.objectives import make_objective
from tests.references.tabular_policy import (
    EVERYONE_PAYS,
    PRICE,
    TabularPolicy,
    assert_equal_gradients,
    difference,
    mean_gradients,
)

EXACT = 1e-6


def objective(loops=LOOPS, **settings) -> Objective:
    return make_objective(loops, **{"gate__probe_share": 1.0} | settings)


def replayed(outcomes, tokens=None, *, price=PRICE, stale=0.0) -> Replayed:
    """All outcomes as one micro batch, each weighted by its probability; `tokens` are probed, by default all.

    `stale`: how much less likely every token was when it was sampled, in nats."""
    count, length = outcomes.depths.shape
    earned = advantages(outcomes).unsqueeze(1).expand(count, length).flatten()
    decisions = outcomes.decisions.flatten(1).T
    depths = outcomes.depths.flatten()
    extra = (depths == 2).double().unsqueeze(1)  # loops after the decision at loop 1
    tokens = torch.arange(count * length) if tokens is None else tokens
    return Replayed(
        token_logprobs=outcomes.token_logprobs.flatten(),
        gate_logits=outcomes.gate_logits.flatten(1),
        depths=depths,
        sampler_logprobs=outcomes.token_logprobs.detach().flatten() - stale,
        depth_logprobs=decisions.detach().sum(1),
        advantages=earned,
        gate_returns=earned.unsqueeze(1) - price * extra,
        gate_advantages=earned,
        loop_prices=torch.full((count * length,), price).double(),
        stay_costs=torch.zeros(count * length, 1).double(),
        hazards=torch.full((count * length, 1), 0.5).double(),
        by_gate=torch.ones(count * length, dtype=torch.bool),
        lengths=torch.full((count,), length),
        weights=outcomes.probabilities.repeat_interleave(length),
        probes=Probes(
            tokens=tokens,
            token_logprobs=outcomes.loop_logprobs.flatten(1)[:, tokens],
            gate_logits=outcomes.gate_logits.flatten(1)[:, tokens],
            detached_gate_logits=outcomes.gate_logits.flatten(1)[:, tokens],
        ),
    )


@pytest.mark.parametrize(
    "cost,probed",
    [
        ("sampled", []),
        ("sampled", [0, 2]),
        ("sampled", [0, 1, 2, 3]),
        ("expected", []),
        ("expected", [0, 1, 2, 3]),  # the cost is exact over all tokens alone; samples are not chosen by their tokens
    ],
)
@pytest.mark.parametrize("credit", ["score", "rao_blackwell"])
@pytest.mark.parametrize("head", ["sampled", "rao_blackwell"])
def test_the_mean_is_the_gradient_of_reward_minus_expected_cost(head, credit, cost, probed):
    """Of a token that ends the answer, whatever is estimated from probes, and for whichever samples."""
    model = enumeration_model()
    outcomes = replay_outcomes(model, 1)
    tokens = torch.tensor([depth * VOCAB + token for depth in range(LOOPS) for token in probed]).long()
    chosen = objective(gate__credit=credit, gate__cost=cost, trainer__credit=head)
    losses = chosen.losses(replayed(outcomes, tokens))
    value = outcomes.logprobs.sum(1).exp() * (advantages(outcomes) - PRICE * outcomes.depths[:, 0])
    wanted = gradient(model, -value.sum(), retain_graph=True)
    assert (gradient(model, losses.total, retain_graph=True) - wanted).abs().max() <= EXACT
    assert len(losses.metrics["gate/gain"]) == len(tokens)


def costs_alone(policy, **settings):
    """Mean gradients of the price's part of the loss."""
    rewards, settings = policy.solved, {"gate__probe_share": 1.0} | settings
    charged, free = (mean_gradients(policy, policy, rewards, gate__price=price, **settings) for price in (PRICE, 0.0))
    return tuple(with_price - without for with_price, without in zip(charged, free, strict=True))


def mean_payments(policy, price_on):
    """What each outcome of a group of two pays on average, times its chance, [O]."""
    chances, solved = policy.logprobs().exp().detach(), policy.solved
    rates = (solved.unsqueeze(1) + solved) / 2  # of each outcome, and of the other one
    pays = rates * solved.unsqueeze(1) if price_on == "solved" else rates
    return chances * (pays @ chances)


@pytest.mark.parametrize("loops, length", [(2, 1), (3, 1), (2, 2)])
@pytest.mark.parametrize("price_on", ["solved", "all"])
def test_the_expected_cost_is_the_mean_payment_times_the_gradient_of_the_expected_depth(price_on, loops, length):
    """Of each token, given what came before it: for one-token answers E[w] times the gradient of E[d]."""
    policy = TabularPolicy(3, loops=loops, length=length)
    expected, sampled = (
        costs_alone(policy, gate__cost=cost, gate__price_on=price_on) for cost in ("expected", "sampled")
    )
    paid = mean_payments(policy, price_on)
    depth = (policy.log_pdf.exp() * torch.arange(1, loops + 1).view(-1, 1, 1)).sum(0)  # [O, n]: the same for a prefix
    wanted = policy.gradients(PRICE * (paid.unsqueeze(1) * depth).sum())
    assert_equal_gradients(expected, wanted)
    if length == 1:
        assert_equal_gradients(wanted, policy.gradients(PRICE * paid.sum() * depth[0, 0]))
    assert difference(expected, sampled) > 1e-3, "payments depend on the depth"


@pytest.mark.parametrize("price_on", ["solved", "all"])
def test_the_sampled_cost_has_the_covariance_of_payment_and_depth_too(price_on):
    policy = TabularPolicy(3, length=1)
    expected, sampled = (
        costs_alone(policy, gate__cost=cost, gate__price_on=price_on) for cost in ("expected", "sampled")
    )
    paid, chances = mean_payments(policy, price_on), policy.logprobs().exp().detach()
    baseline = torch.sigmoid(-policy.gates[0]).detach()
    stays = (policy.depths[:, 0] == 2).float() - baseline
    covariance = ((paid - paid.sum() * chances) * stays * policy.of_depths[:, 0]).sum()
    of_both = [sum(pair) for pair in zip(expected, policy.gradients(PRICE * covariance), strict=True)]
    assert_equal_gradients(sampled, of_both)


@pytest.mark.parametrize("loops", [2, 3])
def test_where_payments_do_not_depend_on_the_depth_both_costs_have_one_mean(loops):
    policy = TabularPolicy(3, loops=loops)
    expected, sampled = (costs_alone(policy, gate__cost=cost, **EVERYONE_PAYS) for cost in ("expected", "sampled"))
    assert_equal_gradients(expected, sampled)
    assert max(gradient.abs().max() for gradient in expected) > 0.01


@pytest.mark.parametrize("rule", list(KVRule))
def test_eta_one_is_the_score_function(rule):
    model = enumeration_model()
    outcomes = replay_outcomes(model, 2, rule)
    spread = objective(gate__credit="rao_blackwell", trainer__credit="rao_blackwell", gate__eta=1.0)
    plain = objective(gate__probe_share=0.0)
    got, wanted = (gradient(model, o.losses(replayed(outcomes)).total, retain_graph=True) for o in (spread, plain))
    assert (got - wanted).abs().max() <= EXACT
    half = objective(gate__credit="rao_blackwell", trainer__credit="rao_blackwell", gate__eta=0.5)
    bias = (gradient(model, half.losses(replayed(outcomes)).total) - wanted).abs().max()
    assert bias <= EXACT if rule is KVRule.FULL else bias > 100 * EXACT


@pytest.mark.parametrize("credit", ["rao_blackwell", "rltt_uniform", "rltt_progressive", "rltt_exit"])
def test_credit_of_the_head_by_hand(credit):
    outcomes = replay_outcomes(enumeration_model(), 1)
    batch = replayed(outcomes, stale=1.0)
    pdf, logprobs = outcomes.log_pdf.flatten(1).exp(), batch.probes.token_logprobs
    weights = {
        "rao_blackwell": pdf * logprobs.exp() / (pdf * logprobs.exp()).sum(0),
        "rltt_uniform": torch.tensor([[1 / 2], [1 / 2]]),
        "rltt_progressive": torch.tensor([[1 / 3], [2 / 3]]),
        "rltt_exit": pdf,
    }[credit]
    truncated = 1.28  # the ratio is e
    expected = -(batch.weights * truncated * batch.advantages * (weights * logprobs).sum(0)).sum()
    losses = objective(trainer__credit=credit, gate__mode="off").losses(batch)
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert losses.gate.item() == 0


def test_stage_two_moves_the_gate_alone_by_the_probed_tokens():
    outcomes = replay_outcomes(enumeration_model(), 1)
    tokens = torch.tensor([1, 5, 6])
    batch = replayed(outcomes, tokens)
    leaf = batch.probes.detached_gate_logits.detach().requires_grad_()
    batch = replace(batch, probes=replace(batch.probes, detached_gate_logits=leaf))
    losses = objective(gate__mode="stage2", gate__probe_share=0.25, gate__loss_weight=2.0).losses(batch)
    nats = stage_two_losses(-batch.probes.token_logprobs, leaf)
    assert losses.gate.item() == pytest.approx((batch.weights[tokens] * nats).sum().item() / 0.25)
    assert losses.total.item() == pytest.approx(losses.token.item() + 2 * losses.gate.item())
    others = [outcomes.gate_logits, outcomes.loop_logprobs]
    grads = torch.autograd.grad(losses.gate, [leaf, *others], allow_unused=True)
    assert grads[0].abs().sum() > 0 and grads[1:] == (None, None)
    nothing = objective(gate__mode="stage2", gate__probe_share=0.25).losses(replace(batch, probes=None))
    assert nothing.gate.item() == 0


@pytest.mark.parametrize(
    "sections,told",
    [
        ({"gate__credit": "rao_blackwell", "gate__probe_share": 0.0}, "gate.credit `rao_blackwell` reads all loops"),
        ({"trainer__credit": "rltt_exit", "gate__probe_share": 0.0}, "set gate.probe_share above 0"),
        ({"gate__mode": "stage2", "gate__probe_share": 0.0}, "gate.mode `stage2` reads all loops"),
        ({"gate__cost": "expected", "gate__mode": "off"}, "gate.cost `expected` has no effect with gate.mode `off`"),
        ({"gate__mode": "stage2", "rollout__top_p": 0.9}, "gate.mode `stage2` needs each token's probability"),
        ({"trainer__credit": "rltt_uniform", "rollout__top_k": 5}, "trainer.credit `rltt_uniform` needs each token's"),
        (
            {"gate__credit": "rao_blackwell", "trainer__importance": "sequence"},
            "no effect on losses that gate.credit `rao_blackwell` spreads over all loops.* set it to `token`",
        ),
        (
            {"trainer__credit": "rltt_exit", "trainer__importance": "sequence"},
            "no effect on losses that trainer.credit `rltt_exit` spreads",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(sections, told):
    with pytest.raises(ValueError, match=told):
        objective(**sections)


@pytest.mark.parametrize("cost", ["sampled", "expected"])
@pytest.mark.parametrize("credit", ["score", "rao_blackwell"])
@pytest.mark.parametrize("probed", [[], [1, 3], [0, 1, 2, 3, 4]])
def test_the_bonus_of_variety_is_the_gradient_of_the_information_whatever_is_probed(credit, cost, probed):
    """Three loops, five tokens with gates of their own and no reward: over all depths, the information's gradient."""
    loops, tokens = 3, 5
    gates = torch.randn(loops, tokens, generator=torch.Generator().manual_seed(7)).double().requires_grad_()
    pdf = exit_log_pdf(gates).exp()
    mean = pdf.mean(1)
    information = (pdf * pdf.log()).sum(0).mean() - (mean * mean.log()).sum()
    (wanted,) = torch.autograd.grad(-information, gates, retain_graph=True)
    hazards = (mean[:2] / torch.cat([torch.ones(1), 1 - mean.cumsum(0)[:1]])).detach()
    depths = torch.arange(1, loops + 1).repeat_interleave(tokens)  # every token at every depth
    every = gates.repeat(1, loops)
    places = torch.tensor([depth * tokens + token for depth in range(loops) for token in probed]).long()
    nothing = torch.zeros(loops * tokens).double()
    batch = Replayed(
        token_logprobs=nothing, sampler_logprobs=nothing, gate_logits=every, depths=depths,
        depth_logprobs=decision_logprobs(every, depths).detach().sum(0), advantages=nothing,
        gate_returns=nothing.unsqueeze(1).expand(-1, 2), gate_advantages=nothing, loop_prices=nothing,
        stay_costs=nothing.unsqueeze(1).expand(-1, 2), hazards=hazards.expand(loops * tokens, -1),
        by_gate=torch.ones(loops * tokens, dtype=torch.bool), lengths=torch.tensor([loops * tokens]),
        weights=pdf.detach().flatten() / tokens,
        probes=Probes(
            tokens=places, token_logprobs=torch.full((loops, len(places)), -1.0).double(),
            gate_logits=every[:, places], detached_gate_logits=every[:, places],
        ),
    )  # fmt: skip
    chosen = objective(loops, gate__credit=credit, gate__cost=cost, gate__variety_bonus=1.0)
    (got,) = torch.autograd.grad(chosen.losses(batch).gate, gates)
    assert (got - wanted).abs().max() <= EXACT and wanted.abs().max() > 0.01
