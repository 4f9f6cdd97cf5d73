"""The algorithms by name: what each is made of, and the settings that it replaces.

Invariant: a recipe names parts that exist once (a baseline, a surrogate, a way to average); no algorithm has a loop of
its own. A setting that belongs to other algorithms, or that this one is defined without, is refused and never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Kind = Literal["policy", "natural", "preference", "likelihood"]
Surrogate = Literal["clip", "cispo", "sapo", "vespo", "gradient", "ratio"]
Baseline = Literal["group", "leave_one_out", "batch", "value", "none"]

OFF: MappingProxyType[str, Any] = MappingProxyType(
    {
        "importance_level": "token",
        "ratio_cap": None,
        "kl_in": "loss",
        "kl_correction": False,
        "sampler_correction": "none",
        "sampler_correction_cap": 2.0,
        "sampler_correction_floor": 0.0,
        "off_policy_threshold": None,
        "top_entropy_share": 1.0,
        "entropy_coef": 0.0,
        "mask_truncated": False,
        "overlong_share": 0.0,
        "overlong_penalty": 0.5,
        "dynamic_sampling": 0,
        "credit": "trajectory",
        "discount": 1.0,
        "reward_aggregation": "sum_then_normalize",
        "gae_lambda": 0.95,
        "value_coef": 0.5,
        "value_clip": 0.2,
        "value_learning_rate": 1e-3,
        "max_kl": 0.01,
        "cg_iterations": 10,
        "cg_damping": 0.1,
        "line_search_steps": 10,
        "preference_loss": "sigmoid",
        "label_smoothing": 0.0,
        "preference_divergence": "reverse_kl",
        "preference_alpha": 0.5,
        "preference_tail": 1.0,
        "preference_sft_weight": 0.0,
        "data_file": None,
    }
)
"""Settings that only some algorithms use, with their built-in values."""

_KL = {"beta", "kl_estimator", "kl_in"}
_CLIP = {"clip_low", "clip_high"}
_EVERYWHERE = {"mask_truncated", "overlong_share", "overlong_penalty", "entropy_coef"}
_SAMPLER = {"sampler_correction", "sampler_correction_cap", "sampler_correction_floor"}
_MASKS = {"off_policy_threshold", "top_entropy_share"}
_GRADIENT = _EVERYWHERE | _KL | _SAMPLER | {"kl_correction"}
_GROUPED = {"dynamic_sampling", "reward_aggregation", "credit", "discount"}
_FAMILY = _GRADIENT | _GROUPED | _MASKS
_VALUE = {"credit", "discount", "gae_lambda", "value_coef", "value_clip", "value_learning_rate"}
_PREFERENCE = {
    "preference_loss",
    "label_smoothing",
    "preference_divergence",
    "preference_alpha",
    "preference_tail",
    "preference_sft_weight",
}
_NATURAL = {"max_kl", "cg_iterations", "cg_damping", "line_search_steps"}

SMOOTHED = frozenset({"exo_pair", "robust", "aot", "aot_unpaired"})
"""Preference losses that `label_smoothing` changes."""
DIVERGENT = frozenset({"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"})
"""Preference losses that are functions of one difference of scores, which `preference_divergence` changes."""

CHECKED = frozenset(OFF) | _KL | _CLIP | {"scale_rewards", "loss_normalization", "num_iterations", "num_generations"}
"""Settings that an algorithm may have no use for."""


@dataclass(frozen=True)
class Recipe:
    """One algorithm.

    Attributes:
        summary: one line for help texts.
        source: arXiv number of the paper.
        kind: how a batch becomes an update.
        baseline: what a reward is compared with; "none" for an algorithm without rewards.
        surrogate: term of the policy gradient, see `algorithms.policy_loss`.
        uses: the settings in `CHECKED` that have an effect.
        defaults: values that replace those of the profile.
        fixed: values that this algorithm is defined by, each with the reason.
    """

    summary: str
    source: str
    kind: Kind = "policy"
    baseline: Baseline = "group"
    surrogate: Surrogate = "clip"
    uses: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, str]] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Any]:
        """What this algorithm puts in the place of the profile's values."""
        return {**self.defaults, **{name: value for name, (value, _) in self.fixed.items()}}


_SEQUENCE = {"importance_level": ("sequence", "its ratios are those of whole conversations; for tokens take grpo")}
_ONCE = {"num_iterations": (1, "its gradient is that of fresh conversations; to use them again take ppo or grpo")}
_AVERAGES = {"scale_rewards", "loss_normalization", "num_iterations", "num_generations"}

RECIPES: MappingProxyType[str, Recipe] = MappingProxyType(
    {
        "grpo": Recipe(
            "clipped ratios, advantages relative to the group",
            "2402.03300",
            uses=frozenset(_FAMILY | _CLIP | _AVERAGES | {"importance_level", "ratio_cap"}),
        ),
        "dr_grpo": Recipe(
            "grpo without the division by the deviation and by lengths",
            "2503.20783",
            uses=frozenset(_FAMILY | _CLIP | _AVERAGES | {"ratio_cap"}),
            defaults={"scale_rewards": "none", "loss_normalization": "constant"},
        ),
        "bnpo": Recipe(
            "grpo with the loss averaged over all tokens of a step",
            "2402.03300",
            uses=frozenset(_FAMILY | _CLIP | _AVERAGES | {"ratio_cap"}),
            fixed={"loss_normalization": ("token", "that is all that tells it from grpo")},
        ),
        # The penalty is half of the paper's, whose rewards are -1 and 1 where ours are 0 to 1.
        "dapo": Recipe(
            "grpo with a wide upper clip, groups that teach nothing drawn again, and a penalty near the length limit",
            "2503.14476",
            uses=frozenset(_FAMILY | _CLIP | _AVERAGES | {"ratio_cap"}),
            defaults={
                "clip_high": 0.28,
                "loss_normalization": "token",
                "scale_rewards": "std",
                "dynamic_sampling": 3,
                "overlong_share": 0.2,
            },
        ),
        "gspo": Recipe(
            "grpo with the ratio of whole conversations, per token",
            "2507.18071",
            uses=frozenset(_FAMILY | _CLIP | _AVERAGES | {"importance_level"}),
            defaults={"clip_low": 3e-4, "clip_high": 4e-4},
            fixed={
                **_SEQUENCE,
                "loss_normalization": ("sequence", "a conversation has one ratio, so it counts once"),
            },
        ),
        "cispo": Recipe(
            "every token keeps a gradient; its importance weight is capped",
            "2506.13585",
            surrogate="cispo",
            uses=frozenset(_FAMILY | _AVERAGES | {"ratio_cap", "importance_level"}),
            defaults={"ratio_cap": 5.0, "loss_normalization": "token"},
        ),
        "sapo": Recipe(
            "a smooth gate in the place of the clip",
            "2511.20347",
            surrogate="sapo",
            uses=frozenset(_FAMILY | _AVERAGES),
            defaults={"loss_normalization": "sequence"},
        ),
        "luspo": Recipe(
            "gspo summed over a conversation's tokens, so that length does not weigh",
            "2602.05261",
            uses=frozenset(_FAMILY | _CLIP | _AVERAGES | {"importance_level"}),
            defaults={"clip_low": 3e-4, "clip_high": 4e-4},
            fixed={**_SEQUENCE, "loss_normalization": ("sum", "that is all that tells it from gspo")},
        ),
        "vespo": Recipe(
            "a smooth weight of the whole conversation's ratio",
            "2602.10693",
            surrogate="vespo",
            uses=frozenset(_FAMILY | _AVERAGES),
            defaults={"loss_normalization": "token"},
        ),
        "rloo": Recipe(
            "REINFORCE, each conversation compared with the mean of the others of its group",
            "2402.14740",
            baseline="leave_one_out",
            uses=frozenset(_GRADIENT | _CLIP | _AVERAGES | {"importance_level", "dynamic_sampling"}),
            defaults={"scale_rewards": "none", "kl_in": "reward", "kl_estimator": "k1"},
            fixed={
                "importance_level": ("product", "its action is the whole conversation"),
                "loss_normalization": ("sequence", "its action is the whole conversation, so that counts once"),
            },
        ),
        "reinforce": Recipe(
            "each conversation compared with the mean of the step",
            "Williams 1992",
            baseline="batch",
            surrogate="gradient",
            uses=frozenset(_GRADIENT | _AVERAGES),
            defaults={"scale_rewards": "none", "kl_in": "reward", "kl_estimator": "k1"},
            fixed=_ONCE,
        ),
        "ppo": Recipe(
            "clipped ratios, advantages from a value head on the model",
            "1707.06347",
            baseline="value",
            uses=frozenset(_GRADIENT | _CLIP | _AVERAGES | _VALUE | {"ratio_cap"}),
            defaults={
                "credit": "token",
                "scale_rewards": "batch",
                "num_iterations": 2,
                "loss_normalization": "token",
                "kl_in": "reward",
                "kl_estimator": "k1",
            },
        ),
        "a2c": Recipe(
            "the plain policy gradient with advantages from a value head, and an entropy bonus",
            "1602.01783",
            baseline="value",
            surrogate="gradient",
            uses=frozenset(_GRADIENT | _AVERAGES | _VALUE),
            defaults={
                "credit": "token",
                "scale_rewards": "batch",
                "gae_lambda": 1.0,
                "value_clip": None,
                "entropy_coef": 0.01,
                "loss_normalization": "token",
                "kl_in": "reward",
                "kl_estimator": "k1",
            },
            fixed=_ONCE,
        ),
        "trpo": Recipe(
            "the natural gradient, as far as a bound on the KL allows",
            "1502.05477",
            kind="natural",
            surrogate="ratio",
            uses=frozenset({"mask_truncated", "overlong_share", "overlong_penalty"} | _GROUPED | _AVERAGES | _NATURAL),
            fixed={
                **_ONCE,
                "gradient_checkpointing": (False, "what is recomputed cannot be differentiated twice"),
                "mixed_precision": (False, "products with the Fisher matrix lose all their digits in bfloat16"),
            },
        ),
        "sft": Recipe(
            "supervised fine-tuning: likelihood of the recorded answers of data_file",
            "2203.02155",
            kind="likelihood",
            baseline="none",
            uses=frozenset({"loss_normalization", "data_file"}),
            defaults={"scale_rewards": "none", "loss_normalization": "token"},
            fixed={"num_iterations": (1, "each step reads conversations of its own; raise num_episodes to read more")},
        ),
        "dpo": Recipe(
            "pairs of a better and a worse conversation: those of data_file, or the best and the worst of each group",
            "2305.18290",
            kind="preference",
            uses=frozenset({"beta", "num_generations", "num_iterations", "data_file"} | _PREFERENCE),
            defaults={"beta": 0.1},
        ),
        "rft": Recipe(
            "rejection fine-tuning: likelihood of the best conversation of each group",
            "2304.06767",
            kind="likelihood",
            uses=frozenset({"loss_normalization", "num_generations", "mask_truncated"}),
            fixed=_ONCE,
        ),
    }
)


def recipe_of(name: object) -> Recipe:
    """The recipe of a name; that of grpo for an unknown one, so that all problems of a config are told together."""
    return RECIPES.get(name, RECIPES["grpo"]) if isinstance(name, str) else RECIPES["grpo"]


def conflicts(algorithm: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Sentences about settings that the algorithm is defined otherwise than, or has no use for.

    Args:
        algorithm: a key of `RECIPES`.
        values: every hyperparameter by name.
        defaults: the values that nobody had to state.
    """
    recipe = RECIPES[algorithm]
    found = [
        f"{name} is {values[name]!r}, but {algorithm} has {fixed!r}: {reason}"
        for name, (fixed, reason) in recipe.fixed.items()
        if values[name] != fixed
    ]
    for name in sorted(CHECKED - recipe.uses - set(recipe.fixed)):
        if values[name] != defaults[name]:
            users = [other for other, one in RECIPES.items() if name in one.uses]
            found.append(f"{name} has no effect on {algorithm}; it belongs to {', '.join(users)}")
    own_groups = values["data_file"] is None or "num_generations" not in recipe.uses
    if "data_file" in recipe.uses and not own_groups and values["num_generations"] != defaults["num_generations"]:
        found.append("num_generations has no effect with data_file: each record is a pair")
    return found + _impossible(algorithm, recipe, values)


def _impossible(algorithm: str, recipe: Recipe, values: Mapping[str, Any]) -> list[str]:
    found = []
    if recipe.baseline == "none" and values["data_file"] is None:
        found.append(f"data_file is missing: {algorithm} learns from recorded conversations; name a JSONL file of them")
    if recipe.kind == "preference" and values["beta"] == 0:
        found.append(f"beta is 0, but {algorithm} needs one above 0: it says how much a difference counts")
    if recipe.kind == "preference":
        found += _impossible_pairs(values)
    if values["sampler_correction"] == "none" and values["sampler_correction_floor"] > 0:
        found.append("sampler_correction_floor bounds the weights of sampler_correction, which is 'none'")
    if recipe.surrogate == "vespo" and values["sampler_correction"].startswith("sequence"):
        found.append(
            f"sampler_correction is {values['sampler_correction']!r}, but vespo multiplies the weights of a "
            "conversation's tokens itself: take token_truncate or token_mask"
        )
    if values["credit"] == "token" and recipe.baseline != "value":
        found.append(f"credit is 'token', but {algorithm} has no value head: take ppo or a2c, or credit 'turn'")
    if recipe.baseline == "value" and values["credit"] == "trajectory":
        found.append(f"credit is 'trajectory', but {algorithm} estimates values along it: take 'token' or 'turn'")
    if recipe.baseline != "group" and values["scale_rewards"] == "std":
        found.append(f"scale_rewards is 'std', but {algorithm} compares with no group: take 'batch' or 'none'")
    if values["kl_in"] == "reward" and values["kl_estimator"] != "k1":
        found.append("kl_in is 'reward', where only k1 is unbiased: set kl_estimator to k1, or kl_in to loss")
    if values["kl_in"] == "loss" and values["kl_estimator"] == "k1" and values["beta"]:
        found.append(
            "kl_estimator is 'k1' in the loss, where its gradient is noise around 0: take k2 or k3, or kl_in reward"
        )
    if values["kl_in"] == "reward" and values["credit"] == "turn" and recipe.baseline == "group" and values["beta"]:
        found.append("kl_in is 'reward' with credit 'turn': take kl_in loss")
    if values["reward_aggregation"] == "normalize_then_sum":
        reasons = {
            "credit": (values["credit"] == "turn", "take one of them"),
            "kl_in": (values["kl_in"] == "reward" and values["beta"] > 0, "take kl_in loss"),
            "overlong_share": (values["overlong_share"] > 0, "its penalty is in none of them"),
            "scale_rewards": (values["scale_rewards"] != "std", "each is divided by its own deviation"),
            "dynamic_sampling": (
                values["dynamic_sampling"] > 0,
                "sums may be equal where parts differ",
            ),
        }
        found += [
            f"{name} is {values[name]!r} with reward_aggregation 'normalize_then_sum': {reason}"
            for name, (clashes, reason) in reasons.items()
            if clashes
        ]
    uses = "loss_normalization" in recipe.uses
    if uses and values["data_file"] is not None and values["loss_normalization"] == "constant":
        found.append("loss_normalization is 'constant' with data_file: a record has no most that it could have sampled")
    return found


def _impossible_pairs(values: Mapping[str, Any]) -> list[str]:
    kind, smoothing = values["preference_loss"], values["label_smoothing"]
    found = []
    if smoothing > 0 and kind not in SMOOTHED:
        found.append(f"label_smoothing has no effect on preference_loss {kind}; it belongs to {_names(SMOOTHED)}")
    if smoothing == 0 and kind == "exo_pair":
        found.append("label_smoothing is 0, but exo_pair takes its logarithm: 0.001 is that of its paper")
    if values["preference_divergence"] != "reverse_kl" and kind not in DIVERGENT:
        found.append(
            f"preference_divergence has no effect on preference_loss {kind}; it belongs to {_names(DIVERGENT)}"
        )
    if values["preference_alpha"] != OFF["preference_alpha"] and values["preference_divergence"] != "alpha":
        found.append("preference_alpha belongs to preference_divergence 'alpha'")
    return found


def _names(kinds: frozenset[str]) -> str:
    return ", ".join(sorted(kinds))
