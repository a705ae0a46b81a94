"""The `gate` section of the configuration: how the exit gate is trained, and what a loop costs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ouro_rl.config.section import Conflict, Section

Updates = Annotated[int, Field(ge=0)]


class GateConfig(Section):
    """The exit gate as a policy, and the price of compute (docs/method.md, "Objective")."""

    mode: Literal["policy", "stage2", "off"] = "policy"
    """`policy` trains the gate by reward and price; `stage2` by what one more loop adds to the log-prob of the sampled
    tokens (the paper's Stage II, on-policy); `off` freezes it and leaves depth to the exit rule."""
    train: Literal["jointly", "only"] = "jointly"
    """`only` freezes everything but the gate: no backward pass through the layers, and far less memory."""
    reaches_body: bool = False
    """Whether the gate's loss also trains the states that it reads. By default it moves the gate alone, so that the
    price does not shape the model."""
    lr: float = Field(default=1e-4, ge=0)
    """Learning rate of the gate."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The gate's gradient is clipped to this norm; `trainer.max_grad_norm` is for everything else."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """Importance ratios of the gate are clipped at 1 - `clip_low`."""
    clip_high: float = Field(default=0.2, gt=0)
    """Importance ratios of the gate are clipped at 1 + `clip_high`."""
    probe_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the samples whose tokens are probed: the loops beyond their depths are computed too, which costs time
    (docs/results.md) and changes nothing else. 0: none."""
    credit: Literal["score", "rao_blackwell"] = "score"
    """How the reward reaches the gate: through the depth that was drawn, or, in probed samples, through all loops by
    their posterior."""
    eta: float = Field(default=0.0, ge=0, le=1)
    """With `rao_blackwell` credit, of the gate or the trainer: the part of the score function, 0 for the least
    variance, 1 for no bias."""
    cost: Literal["sampled", "expected"] = "sampled"
    """The gradient of the price: from the sampled depths, or, in probed samples, that of the expected depth."""
    loss_weight: float = Field(default=1.0, ge=0)
    """Weight of the gate's loss relative to the token loss."""
    variety_bonus: float = Field(default=0.0, ge=0)
    """Reward per nat of mutual information between a token and its depth: against a gate that treats all tokens
    alike."""
    price: float = Field(default=0.01, ge=0)
    """Price of one loop, in units of reward; with a target, its initial value."""
    price_in: Literal["returns", "reward"] = "returns"
    """Where the price is charged: in the returns of the decisions that cause the loops, or (`reward`, the naive way,
    for comparison) on the whole answer's reward, for both heads alike."""
    price_on: Literal["solved", "all"] = "solved"
    """Which answers of a group pay, in proportion to its share of solved ones: those that are solved, or all that are
    scored and finished."""
    solved_reward: float = 0.5
    """An answer with this reward or more is solved."""
    depth_floor: int = Field(default=1, ge=1)
    """Loops of a token up to this one are free."""
    kappa: float = Field(default=0.0, ge=0, le=1)
    """Share of the price that decisions and tokens pay for the loops of the tokens that follow, against the group's
    mean: with 1, answers may not grow for free."""
    baseline: Literal["state", "batch"] = "state"
    """What a decision's extra loops are compared with: the chance of staying at this token times the mean of those that
    stayed, or the mean of all decisions at that loop."""
    keep_best: int | None = Field(default=None, ge=1)
    """Learn from the answers of a group with the most reward per loop, this many (GFPO, for comparison). null: from
    all."""
    target_loops: float | None = Field(default=None, gt=0)
    """Target of the mean loops per answer: a controller moves the price. null: none."""
    target_depth: float | None = Field(default=None, ge=1)
    """Target of the mean loops per token: a controller moves the price. null: none; without any, the price is
    constant."""
    target_step: float = Field(default=0.1, gt=0, le=1)
    """The controller approaches its target in steps of this share, each when the last one is met; 1: at once."""
    price_after: Updates | Literal["settled"] = 0
    """Updates before the price is charged; `settled`: until the mean reward of ten updates is no more than 0.02 above
    that of the ten before."""
    price_warmup: Updates = 0
    """Updates over which the price then rises from 0."""
    price_rate: float = Field(default=0.002, ge=0)
    """Integral gain of the controller: change of the price per update, per unit of relative error."""
    price_gain: float = Field(default=0.05, ge=0)
    """Proportional gain of the controller: part of the price, per unit of relative error."""
    price_max: float = Field(default=0.2, gt=0)
    """Bound of the price. The controller may turn it negative, down to minus this, where loops are below the target."""
    price_window: int = Field(default=4, ge=1)
    """Updates that the controller's moving mean remembers."""

    @model_validator(mode="after")
    def _fits(self) -> GateConfig:
        if self.target_loops is not None and self.target_depth is not None:
            text = "target_loops and target_depth are two targets for one price; set one of them to null"
            raise Conflict(text, "target_loops", "target_depth")
        if self.mode == "off" and self.train == "only":
            text = "mode `off` freezes the gate and train `only` everything else; change one of them"
            raise Conflict(text, "mode", "train")
        if self.price > self.price_max:
            text = f"price ({self.price:g}) is above price_max ({self.price_max:g}); raise price_max"
            raise Conflict(text, "price", "price_max")
        return self

    @property
    def target(self) -> float | None:
        """Of the measured loops: per answer, or per token."""
        return self.target_depth if self.target_loops is None else self.target_loops
