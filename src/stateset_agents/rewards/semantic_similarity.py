"""How near in meaning a reply is to a reference.

Invariant: the score is the cosine of two sentence vectors, cut off at 0, and nothing else enters it; the same texts
always have the same score. What the cosine cannot see is said in the class, with numbers.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..core.errors import ConfigError
from ..core.facts import accepted_wordings
from ..core.reward import RewardFunction, RewardResult, load_ground_truth
from ..core.rewards.base import Context, Turns
from ..core.rewards.ground_truth import GroundTruth, checked_ground_truth
from ..core.tool_calls import replies
from ..models.sentences import SentenceEmbedder, find_installed

if TYPE_CHECKING:
    from torch import Tensor

Which = Literal["best", "last"]


class SemanticSimilarityReward(RewardFunction):
    """Cosine of a reply and the reference, in [0, 1]: 0 for texts that have nothing to do with each other.

    The reference is the scenario's ground truth: one given here under its id, else the scenario's own. Of several
    wordings the nearest counts; of several topics each is asked for, and the score is their mean. By default the best
    reply of a conversation counts, since the answer may come before the thanks and the good-bye; every reply is then
    another try. A scenario without ground truth is unscored.

    Negative cosines count as 0, so that "nothing to do with it" and "not at all like it" are the same.

    It sees what a text is about, not whether it is true. With all-MiniLM-L6-v2 and the reference "The plan costs $49 a
    month.": "It is 49 dollars monthly." 0.76, an offer of help 0.04; but "The plan costs $94 a month." 0.86, the
    question said back 0.85, the keywords without a sentence 0.91, and a refund that is granted is like one that is
    refused by 0.90. It reads English: the same in German has 0.25. Use it beside `correctness`, which matches facts.

    Args:
        weight: see `RewardFunction`.
        ground_truth: scenario id to its right answer, or one answer for every scenario.
        ground_truth_file: a file with them; see `core.rewards.ground_truth`.
        model: folder of a model of the sentence-transformers kind; None: all-MiniLM-L6-v2 from the extra `similarity`.
        reply: "best" or "last".
        device: of the model; None: the first CUDA GPU if there is one, else the CPU.
        name: see `RewardFunction`.

    Raises:
        ConfigError: a setting is wrong.
        DataError: the file is missing or malformed.
        ModelError: no model is given and the extra is not installed.
    """

    maximum = 1.0

    def __init__(
        self,
        weight: float = 1.0,
        ground_truth: str | Mapping[str, GroundTruth] | None = None,
        ground_truth_file: str | Path | None = None,
        model: str | Path | None = None,
        reply: Which = "best",
        device: str | None = None,
        name: str = "",
    ) -> None:
        super().__init__(weight, name)
        if ground_truth is not None and ground_truth_file is not None:
            raise ConfigError("semantic_similarity takes ground_truth or ground_truth_file, not both")
        if reply not in get_args(Which):
            raise ConfigError(f"reply is {reply!r}; want {' or '.join(map(repr, get_args(Which)))}")
        self.ground_truth: str | Mapping[str, GroundTruth] | None = ground_truth
        if ground_truth_file is not None:
            self.ground_truth = load_ground_truth(ground_truth_file)
        elif ground_truth is not None:
            entries = {"every scenario": ground_truth} if isinstance(ground_truth, str) else ground_truth
            checked_ground_truth(entries, "ground_truth", ConfigError)
        if model is None:
            find_installed()
        self.model = None if model is None else str(model)
        self.reply: Which = reply
        self.device = device

    @cached_property
    def embedder(self) -> SentenceEmbedder:
        """The model, loaded when it is first needed.

        Raises:
            ModelError: see `SentenceEmbedder`.
        """
        return _embedder(self.model, self.device)

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Compare each reply, or the last, with the reference."""
        context = context or {}
        topics = self._references(context)
        if not topics:
            return RewardResult.unscored(f"scenario {context.get('scenario_id', '?')!r} has no ground truth")
        said = [turn.content for turn in replies(turns)]
        if not any(text.strip() for text in said):
            return RewardResult(0.0, turn_rewards=[0.0] * len(said))
        wordings = [wording for accepted in topics.values() for wording in accepted]
        # In a thread, so that other conversations go on meanwhile.
        vectors = await asyncio.to_thread(lambda: self.embedder.vectors([*said, *wordings]))
        near = vectors[: len(said)] @ vectors[len(said) :].T
        return self._result(near.clamp(0.0, 1.0), said, topics)

    def _result(self, near: Tensor, said: Sequence[str], topics: Mapping[str, Sequence[str]]) -> RewardResult:
        shares, scores, at = [0.0] * len(said), {}, 0
        for topic, accepted in topics.items():
            of_replies = near[:, at : at + len(accepted)].amax(dim=1).tolist()
            of_replies = [score if text.strip() else 0.0 for score, text in zip(of_replies, said, strict=True)]
            at += len(accepted)
            place = of_replies.index(max(of_replies)) if self.reply == "best" else len(said) - 1
            scores[topic] = of_replies[place]
            shares[place] += of_replies[place] / len(topics)
        breakdown = scores if len(scores) > 1 else {}
        return RewardResult(sum(scores.values()) / len(scores), breakdown, turn_rewards=shares)

    def require(self, scenarios: Sequence[Mapping[str, Any]]) -> None:
        """Check that there is something to compare with.

        Raises:
            ConfigError: no scenario has ground truth.
        """
        if scenarios and len(self._silent(scenarios)) == len(scenarios):
            raise ConfigError(
                f"the reward {self.label!r} has nothing to compare with: none of the {len(scenarios)} scenarios has "
                "ground truth. Add `ground_truth:` to the scenarios, set ground_truth_file, or leave it out"
            )

    def notices(self, scenarios: Sequence[Mapping[str, Any]]) -> list[str]:
        """That it does not see truth, and which scenarios it cannot judge."""
        told = [f"reward {self.label!r} hears what replies are about, and not whether they are true"]
        silent = self._silent(scenarios)
        if silent:
            told.append(
                f"reward {self.label!r} cannot judge {len(silent)} of {len(scenarios)} scenarios (first: "
                f"{silent[0]!r}), which have no ground truth: their episodes are unscored and teach nothing"
            )
        return told

    def _silent(self, scenarios: Sequence[Mapping[str, Any]]) -> list[Any]:
        known = ({"scenario_id": one.get("id"), "ground_truth": one.get("ground_truth")} for one in scenarios)
        return [context["scenario_id"] for context in known if not self._references(context)]

    def _references(self, context: Context) -> dict[str, tuple[str, ...]]:
        """Accepted wordings by topic."""
        truth: Any = self.ground_truth
        if isinstance(truth, Mapping):
            truth = truth.get(str(context.get("scenario_id")))
        truth = context.get("ground_truth") if truth is None else truth
        if not truth:
            return {}
        topics = truth if isinstance(truth, Mapping) else {"answer": truth}
        return {str(topic): tuple(accepted_wordings(fact)) for topic, fact in topics.items()}


_embedders: weakref.WeakValueDictionary[tuple[str | None, str | None], SentenceEmbedder] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def _embedder(folder: str | None, device: str | None) -> SentenceEmbedder:
    """The model of that folder, once in memory for all rewards that use it."""
    with _loading:
        found = _embedders.get((folder, device))
        if found is None:
            found = _embedders[folder, device] = SentenceEmbedder(folder, device=device)
        return found
