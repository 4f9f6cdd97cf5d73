"""The hyperparameters that belong to algorithms: how rewards become an update."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .fields import NotNegative, Positive, Real, Section, Whole

AlgorithmName = Literal[
    "grpo",
    "dr_grpo",
    "bnpo",
    "dapo",
    "gspo",
    "cispo",
    "sapo",
    "luspo",
    "vespo",
    "rloo",
    "reinforce",
    "ppo",
    "a2c",
    "trpo",
    "sft",
    "dpo",
    "rft",
]


PreferenceLossName = Literal[
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
]


class AlgorithmSettings(Section):
    """What `algorithm` chooses, and what can be changed about it. `config.algorithms` says which belong to which."""

    algorithm: AlgorithmName = Field(description="how rewards become an update")
    scale_rewards: Literal["std", "batch", "none"] = Field(
        description="divide advantages by the group's standard deviation, by the step's, or leave them (Dr. GRPO)"
    )
    reward_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = Field(
        description="of several rewards: compare sums, or compare each by itself and add up (GDPO)"
    )
    credit: Literal["trajectory", "turn", "token"] = Field(
        description="what has an advantage of its own: the conversation, each turn, or each token (value heads)"
    )
    discount: Annotated[Real, Field(gt=0, le=1)] = Field(description="worth of what comes one turn or token later")
    loss_normalization: Literal["token", "sequence", "constant", "sum"] = Field(
        description="average over all tokens of a step, over each conversation first, divide by a constant, or sum "
        "over each conversation"
    )
    importance_level: Literal["token", "sequence", "product"] = Field(
        description="ratio of a token, the mean one of its conversation, or the product over it"
    )
    clip_low: Annotated[Real, Field(gt=0, lt=1)] = Field(description="the ratio is clipped below 1 - clip_low")
    clip_high: Annotated[Real, Field(gt=0, le=10)] = Field(description="the ratio is clipped above 1 + clip_high")
    ratio_cap: Annotated[Real, Field(gt=0, le=1e6)] | None = Field(
        description="largest ratio of any token; null: no cap"
    )
    beta: Annotated[Real, Field(ge=0, le=10)] = Field(description="weight of the KL to the reference; 0 loads none")
    kl_estimator: Literal["k1", "k2", "k3"] = Field(description="estimator of that KL; k1 for kl_in reward")
    kl_in: Literal["loss", "reward"] = Field(description="add the KL to the loss, or take it from the reward")
    kl_correction: bool = Field(description="multiply the KL in the loss by the ratio: unbiased off-policy")
    sampler_correction: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = Field(
        description="weigh tokens or conversations by learner / sampler probability, bounded or left out beyond a cap"
    )
    sampler_correction_cap: Annotated[Real, Field(ge=1, le=1e6)] = Field(description="largest such weight")
    sampler_correction_floor: Annotated[Real, Field(ge=0, le=1)] = Field(description="smallest such weight")
    off_policy_threshold: Annotated[Real, Field(gt=0, le=1000)] | None = Field(
        description="leave out what is to be unlearned where the sampler is surer of it, by this many nats per token"
    )
    top_entropy_share: Annotated[Real, Field(gt=0, le=1)] = Field(
        description="share of a step's tokens that the policy learns from: those of highest entropy"
    )
    entropy_coef: Annotated[Real, Field(ge=0, le=1)] = Field(description="weight of the entropy bonus")
    mask_truncated: bool = Field(description="leave replies that the length limit cut out of the loss")
    overlong_share: Annotated[Real, Field(ge=0, le=1)] = Field(
        description="last share of max_new_tokens in which a reply's length costs reward; 0: none"
    )
    overlong_penalty: Annotated[Real, Field(ge=0, le=1000)] = Field(
        description="that cost for a reply of the greatest length"
    )
    dynamic_sampling: Annotated[NotNegative, Field(le=100)] = Field(
        description="times that a step draws other scenarios for groups whose rewards are all equal"
    )
    gae_lambda: Annotated[Real, Field(ge=0, le=1)] = Field(description="0 trusts the value head, 1 the rewards alone")
    value_coef: Annotated[Real, Field(gt=0, le=1000)] = Field(description="weight of the value loss")
    value_clip: Annotated[Real, Field(gt=0, le=1000)] | None = Field(description="how far a value may move in one step")
    value_learning_rate: Annotated[Real, Field(gt=0, le=1)] = Field(description="learning rate of the value head")
    max_kl: Annotated[Real, Field(gt=0, le=1)] = Field(description="bound on the mean KL of one step, in nats")
    cg_iterations: Annotated[Positive, Field(le=1000)] = Field(description="iterations of the conjugate gradient")
    cg_damping: Annotated[Real, Field(ge=0, le=1000)] = Field(description="added to the diagonal of the Fisher matrix")
    line_search_steps: Annotated[Whole, Field(ge=0, le=100)] = Field(description="times that a step is halved at most")
    preference_loss: PreferenceLossName = Field(description="loss of dpo; docs/algorithms.md has their formulas")
    label_smoothing: Annotated[Real, Field(ge=0, lt=0.5)] = Field(
        description="share of pairs that are the wrong way round, for exo_pair, robust, aot and aot_unpaired"
    )
    preference_divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = Field(
        description="what holds dpo to its reference"
    )
    preference_alpha: Annotated[Real, Field(ge=0, le=10)] = Field(
        description="of preference_divergence alpha: 0 is forward_kl, 1 reverse_kl"
    )
    preference_tail: Annotated[Real, Field(ge=0, le=1)] = Field(
        description="weight of the tokens that an answer has beyond the length of the other one of its pair"
    )
    preference_sft_weight: Annotated[Real, Field(ge=0, le=1000)] = Field(
        description="weight of the likelihood of the chosen answers, added to the loss of dpo"
    )
    num_iterations: Positive = Field(description="updates made with each step's conversations")
