"""The rewards that a config can name, and the keys that each takes there.

Invariant: what an entry of a config's `rewards` may say stands here once. The config schema checks entries by it,
`build.py` makes rewards of them and `RewardFunction.to_config` writes them back; a test holds it against the signatures
of the classes. A reward is named by its address and imported when a config asks for it, so that those of higher rooms,
which need models or services, are named here and loaded by nobody else.

To add a reward, write its class and one entry of `KINDS`. An option bears the name of the argument of `__init__` that
it becomes and of the attribute that keeps it; leaving it out, or null, stands for the argument's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..secrets import is_variable
from .options import Option


@dataclass(frozen=True)
class RewardKind:
    """A reward that a config can name.

    Attributes:
        address: of its class in this package, for example "core.rewards.safety.SafetyReward"; "" for a custom one.
        options: by key, beside `type`, `weight` and `name`, which every reward takes.
        imports: whether options name code or files of the operator's own; what makes it then takes `base_dir`, the
            config's folder.
        maker: name of the class method that takes the options, where that is not the class itself.
    """

    address: str
    options: Mapping[str, Option] = field(default_factory=dict)
    imports: bool = False
    maker: str = ""


PACKAGE = __name__.partition(".")[0]

_MODULE = Option(str, "dotted name of a reward of your own", needed=True, example="module: my_rewards.my_reward")
_REWARD_TYPE = Option(
    Literal["immediate", "dense", "cumulative", "sparse"], "when it looks at a conversation; null: as its class says"
)
_MARKER = Option(str, 'what stands before the answer in a reply, such as "Answer:"')
_DEVICE = Option(str, "of the reward's own model: cpu, cuda, cuda:N or mps; null: the GPU if there is a CUDA one")
_GROUND_TRUTH = {
    "ground_truth": Option(Any, "the right answer, or scenario id to right answer"),
    "ground_truth_file": Option(str, "JSON or YAML file of right answers", file=True),
}

_JUDGE = {
    "base_url": Option(
        str, "of an OpenAI-compatible server, with /v1", needed=True, example="base_url: http://127.0.0.1:8000/v1"
    ),
    "model": Option(str, "as the server calls it", needed=True, example="model: my-judge"),
    "api_key_env": Option(
        str,
        "name of the variable with the API key",
        check=is_variable,
        wanted="the name of an environment variable in capitals, such as JUDGE_API_KEY",
    ),
    "rubric": Option(str, "what a good conversation is, in words"),
    "show": Option(list[str], "of the context, what the judge sees beside the turns"),
    "cache_file": Option(str, "SQLite file that keeps what the judge said"),
    "temperature": Option(float, "of the judge's answer", at_least=0),
    "max_tokens": Option(int, "longest answer", at_least=1),
    "seconds": Option(float, "of one request", above=0),
    "total_seconds": Option(float, "of a question with all its tries", above=0),
    "retries": Option(int, "of a request that failed in passing", at_least=0),
    "first_wait": Option(float, "seconds before the first retry", at_least=0),
    "when_down": Option(
        Literal["skip", "wait"],
        "a server that keeps failing; skip: its conversations leave their groups, wait: the run stands still",
    ),
    "patience": Option(
        float,
        "seconds that a question waits for a server that keeps failing; with `when_down: wait` the run does, 3600 if "
        "left out, and then stops",
        at_least=0,
    ),
    "concurrency": Option(int, "requests in flight at once", at_least=1),
    "max_bytes": Option(int, "of one answer", at_least=1),
    "extra_body": Option(dict[str, Any], "more keys of each request; null leaves one out"),
}
_CHECKS = "checks: [{contains: refund, points: 2}]"

KINDS: dict[str, RewardKind] = {
    "helpfulness": RewardKind("core.rewards.helpfulness.HelpfulnessReward", {"reward_type": _REWARD_TYPE}),
    "safety": RewardKind("core.rewards.safety.SafetyReward", {"reward_type": _REWARD_TYPE}),
    "correctness": RewardKind("core.rewards.correctness.CorrectnessReward", _GROUND_TRUTH),
    "conciseness": RewardKind(
        "core.rewards.conciseness.ConcisenessReward", {"optimal_length": Option(int, "in words", at_least=1)}
    ),
    "engagement": RewardKind("core.rewards.engagement.EngagementReward", {"reward_type": _REWARD_TYPE}),
    "task_completion": RewardKind(
        "core.rewards.task_completion.TaskCompletionReward",
        {"partial": Option(bool, "whether some of the required actions earn their share")},
    ),
    "tool_success": RewardKind(
        "core.rewards.tool_success.ToolSuccessReward",
        {
            "needed_calls": Option(int, "calls that a conversation needs; more earn nothing", at_least=0),
            "without_calls": Option(Literal["zero", "unscored"], "what a conversation without calls gets"),
        },
    ),
    "format": RewardKind(
        "core.rewards.format.FormatReward",
        {
            "json_schema": Option(dict[str, Any], "JSON Schema that the reply has to fit"),
            "schema_file": Option(str, "JSON or YAML file with it", file=True),
            "allow_text": Option(bool, "whether there may be text around the JSON"),
            "judged": Option(Literal["last", "every"], "which replies"),
        },
    ),
    "exact_match": RewardKind("core.rewards.exact_match.ExactMatchReward", {**_GROUND_TRUTH, "marker": _MARKER}),
    "numeric_match": RewardKind(
        "core.rewards.numeric_match.NumericMatchReward",
        {
            **_GROUND_TRUTH,
            "tolerance": Option(float, "largest difference that is still right", at_least=0),
            "relative_tolerance": Option(float, "the same as a share of the right number", at_least=0),
            "number": Option(Literal["last", "only"], "which number of the reply"),
            "marker": _MARKER,
        },
    ),
    "repetition_penalty": RewardKind(
        "core.rewards.repetition.RepetitionPenalty", {"ngram": Option(int, "words in a run", at_least=1)}
    ),
    "length_penalty": RewardKind(
        "core.rewards.length.LengthPenalty",
        {
            "max_words": Option(int, "longest reply that costs nothing", at_least=1),
            "min_words": Option(int, "shortest reply that costs nothing", at_least=1),
            "margin": Option(int, "words beyond max_words until the penalty is whole; null: max_words", at_least=1),
        },
    ),
    "rubric": RewardKind(
        "core.rewards.rubric.RubricReward",
        {
            "checks": Option(
                list[dict[str, Any]],
                "rules with points",
                needed=True,
                example="checks: [{contains: refund, points: 2}]",
            )
        },
        imports=True,
    ),
    "llm_judge": RewardKind("rewards.llm_judge.LLMJudgeReward", _JUDGE, imports=True, maker="from_entry"),
    "group_judge": RewardKind("rewards.group_judge.GroupJudgeReward", _JUDGE, imports=True, maker="from_entry"),
    "learned": RewardKind(
        "rewards.learned.LearnedReward",
        {
            "folder": Option(
                str,
                "what LearnedReward.save has written",
                needed=True,
                example="folder: my_reward",
                file=True,
                folder=True,
            ),
            "sha256": Option(str, "of the head that the folder must hold; null: any"),
            "device": _DEVICE,
            "reward_type": _REWARD_TYPE,
        },
    ),
    "semantic_similarity": RewardKind(
        "rewards.semantic_similarity.SemanticSimilarityReward",
        {
            **_GROUND_TRUTH,
            "model": Option(
                str,
                "folder of a model of the sentence-transformers kind; null: all-MiniLM-L6-v2",
                file=True,
                folder=True,
            ),
            "reply": Option(Literal["best", "last"], "which reply of a conversation counts"),
            "device": _DEVICE,
        },
    ),
    "custom": RewardKind("", {"module": _MODULE}),
}


def kind_of(reward_class: type) -> str | None:
    """The name under which a config knows a class; None for a class of somebody's own, a derived one included."""
    address = f"{reward_class.__module__}.{reward_class.__qualname__}".removeprefix(f"{PACKAGE}.")
    return next((name for name, kind in KINDS.items() if kind.address == address), None)
