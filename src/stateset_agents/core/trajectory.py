"""Turns, trajectories and groups: what a conversation was, in words and in tokens.

Invariant: ids are the truth. A `TokenRow` holds every token exactly once, in order, with `ids`, `mask` and `logprobs`
of equal length by construction. A token has mask 1 if and only if the engine sampled it for a reply that reached
the conversation unchanged. Text that code wrote or edited is context: mask 0.

An agent opens a row, appends context and sampled spans to it while the chat template keeps the exact prefix, and opens
another row when the template (or the agent's own code) rewrites history.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from .outcome import Outcome, StopReason
from .tool_calls import ToolCall, ToolResult, replies, replies_at


@dataclass
class TokenRow:
    """One training row: a prefix-exact token sequence with what was sampled in it.

    Attributes:
        ids: token ids, in the order in which the model saw them.
        mask: 1 for a sampled token that is trained, 0 for context.
        logprobs: natural-log probability under the sampling policy; 0.0 where the token was not sampled.
        versions: policy version that sampled the token; -1 where it was not sampled.
    """

    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    def append_context(self, ids: Sequence[int]) -> None:
        """Append tokens that the model reads but is not trained on."""
        self.ids.extend(ids)
        self.mask.extend([0] * len(ids))
        self.logprobs.extend([0.0] * len(ids))
        self.versions.extend([-1] * len(ids))

    def append_sampled(self, ids: Sequence[int], logprobs: Sequence[float], version: int) -> SampledSpan:
        """Append a reply exactly as the engine sampled it.

        Raises:
            ValueError: `ids` and `logprobs` differ in length.
        """
        if len(ids) != len(logprobs):
            raise ValueError(f"{len(ids)} sampled ids but {len(logprobs)} log-probs")
        start = len(self.ids)
        self.ids.extend(ids)
        self.mask.extend([1] * len(ids))
        self.logprobs.extend(logprobs)
        self.versions.extend([version] * len(ids))
        return SampledSpan(self, start, len(self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def trained_tokens(self) -> int:
        """Number of tokens with mask 1."""
        return sum(self.mask)

    def to_dict(self) -> dict[str, list[Any]]:
        """The four parallel lists, ready for JSON."""
        return {"ids": self.ids, "mask": self.mask, "logprobs": self.logprobs, "versions": self.versions}

    @classmethod
    def from_dict(cls, data: dict[str, list[Any]]) -> TokenRow:
        """Inverse of `to_dict`.

        Raises:
            ValueError: the lists differ in length.
        """
        row = cls(list(data["ids"]), list(data["mask"]), list(data["logprobs"]), list(data["versions"]))
        if len({len(row.ids), len(row.mask), len(row.logprobs), len(row.versions)}) != 1:
            raise ValueError("ids, mask, logprobs and versions of a token row differ in length")
        return row


@dataclass(frozen=True)
class SampledSpan:
    """Where a reply lies in its row: `row.ids[start:end]`."""

    row: TokenRow = field(repr=False)
    start: int
    end: int

    @property
    def ids(self) -> list[int]:
        """The sampled token ids, end-of-turn token included if it was sampled."""
        return self.row.ids[self.start : self.end]

    @property
    def logprobs(self) -> list[float]:
        """Log-probabilities under the sampling policy, one for each id."""
        return self.row.logprobs[self.start : self.end]

    def unmask(self) -> None:
        """Keep the span as context only: its text did not reach the conversation as it was sampled."""
        self.row.mask[self.start : self.end] = [0] * (self.end - self.start)


@dataclass
class ConversationTurn:
    """A single message of a conversation.

    Attributes:
        role: "system", "user", "assistant" or "tool".
        content: the text.
        metadata: free for agents, environments and rewards; must be JSON-serialisable to be logged.
        timestamp: UTC.
        span: where the sampled tokens lie, for a reply that came from an engine; otherwise None.
        sampled_text: the text of those tokens. A `content` that differs from it was edited by code.
        stop_reason: why the reply ended, for a sampled reply.
        tool_calls: what an assistant turn asks tools for.
        tool_result: how the call went, for a turn with the role "tool".
        steps: turns that led to this one, in order: calls of the agent and what the tools said. The rollout puts them
            into the conversation before it.
    """

    role: str
    content: str
    metadata: dict[str, Any] = field(default_factory=dict)
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    span: SampledSpan | None = field(default=None, repr=False, compare=False)
    sampled_text: str | None = field(default=None, repr=False, compare=False)
    stop_reason: StopReason | None = field(default=None, compare=False)
    tool_calls: tuple[ToolCall, ...] = ()
    tool_result: ToolResult | None = None
    steps: list[ConversationTurn] = field(default_factory=list, repr=False, compare=False)

    @property
    def sampled(self) -> bool:
        """Whether the content is word for word what the engine sampled."""
        return self.span is not None and self.content == self.sampled_text

    def bare(self) -> ConversationTurn:
        """What was said and called, without tokens and metadata."""
        return ConversationTurn(self.role, self.content, tool_calls=self.tool_calls, tool_result=self.tool_result)

    def to_message(self) -> dict[str, str]:
        """The `{"role", "content"}` form that chat templates and APIs use."""
        return {"role": self.role, "content": self.content}

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without tokens (those are in the trajectory's rows)."""
        data: dict[str, Any] = {
            "role": self.role,
            "content": self.content,
            "timestamp": self.timestamp.isoformat().replace("+00:00", "Z"),
        }
        if self.metadata:
            data["metadata"] = self.metadata
        if self.stop_reason is not None:
            data["stop_reason"] = self.stop_reason.value
        if self.tool_calls:
            data["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        if self.tool_result is not None:
            data["tool_result"] = self.tool_result.to_dict()
        return data


@dataclass
class MultiTurnTrajectory:
    """One complete episode.

    Attributes:
        scenario_id: id of the scenario it was played on.
        key: the opaque key of the episode; every reply's sampling noise derives from it.
        turns: the conversation, without the system prompt.
        rows: training rows, usually one.
        reward: the reward function's score plus the environment's step rewards; None if it could not be scored.
        turn_rewards: one number for each assistant turn, calls of tools included, where the reward or the environment
            gave them.
        breakdown: the reward's components, for the log.
        components: score and weight of each reward of a sum, and of the environment's step rewards together, for
            algorithms that compare each by itself; empty where the reward is no sum.
        outcome: how the episode ended.
        success: the environment's or scenario's criterion, or None if neither states one.
        error: what went wrong, for an outcome that is not scored.
        edited_turns: assistant turns whose text code wrote or edited (mask 0).
        advantages: what an update made of each assistant turn: the mean advantage of its trained tokens, None where
            none is trained; empty before an update.
        tokens: the same token by token, of some conversations only: for each row its `pieces` of text and their
            `mask`, `advantages` and `logprobs`, and how many tokens were `cut` off.
        metadata: free; under "reward" what the reward added, its `unscored` the reason for a reward of None; under
            "user" who answered the agent, where that was no script: kind, model, temperature, seed, and as `unheard`
            what it said that the agent did not get to hear.
    """

    scenario_id: str
    key: str = ""
    turns: list[ConversationTurn] = field(default_factory=list)
    rows: list[TokenRow] = field(default_factory=list)
    reward: float | None = None
    turn_rewards: list[float] = field(default_factory=list)
    breakdown: dict[str, float] = field(default_factory=dict)
    components: dict[str, tuple[float, float]] = field(default_factory=dict)
    outcome: Outcome = Outcome.OK
    success: bool | None = None
    error: str | None = None
    edited_turns: int = 0
    advantages: list[float | None] = field(default_factory=list)
    tokens: list[dict[str, Any]] = field(default_factory=list, repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def assistant_turns(self) -> list[ConversationTurn]:
        """The agent's turns, in order: its replies, and its calls of tools."""
        return [turn for turn in self.turns if turn.role == "assistant"]

    @property
    def length(self) -> int:
        """Episode length: the number of replies to the user. Calls of tools are part of the reply that they lead to."""
        return len(replies(self.turns))

    @property
    def moves(self) -> list[int]:
        """For each assistant turn the number of the move that it is part of: calls belong to the reply they lead to."""
        answers = set(replies_at(self.turns))
        found, move = [], 0
        for place, turn in enumerate(self.turns):
            if turn.role == "assistant":
                found.append(move)
                move += place in answers
        return found

    @property
    def move_rewards(self) -> list[float]:
        """One number for each move, where there are turn rewards."""
        given: dict[int, float] = {}
        for move, reward in zip_longest(self.moves, self.turn_rewards):
            at = len(given) if move is None else move
            given[at] = given.get(at, 0.0) + (reward or 0.0)
        return list(given.values()) if self.turn_rewards else []

    @property
    def trained_tokens(self) -> int:
        """Number of tokens with mask 1 over all rows."""
        return sum(row.trained_tokens for row in self.rows)

    def to_dict(self, *, tokens: bool = False) -> dict[str, Any]:
        """JSON form; with `tokens`, the training rows too."""
        data: dict[str, Any] = {
            "scenario_id": self.scenario_id,
            "key": self.key,
            "outcome": self.outcome.value,
            "reward": self.reward,
            "success": self.success,
            "turn_rewards": self.turn_rewards,
            "breakdown": self.breakdown,
            "turns": [turn.to_dict() for turn in self.turns],
        }
        if self.error:
            data["error"] = self.error
        if "user" in self.metadata:
            data["user"] = self.metadata["user"]
        unscored = (self.metadata.get("reward") or {}).get("unscored")
        if unscored:
            data["unscored"] = str(unscored)
        if self.edited_turns:
            data["edited_turns"] = self.edited_turns
        if self.advantages:
            data["advantages"] = self.advantages
        if self.tokens:
            data["tokens"] = self.tokens
        if tokens:
            data["rows"] = [row.to_dict() for row in self.rows]
        return data


@dataclass
class TrajectoryGroup:
    """The trajectories of one scenario that share a baseline.

    Attributes:
        scenario_id: the scenario.
        trajectories: the scored ones, in sample order.
        failures: episodes that left the group, kept for counting and for the log.
    """

    scenario_id: str
    trajectories: list[MultiTurnTrajectory] = field(default_factory=list)
    failures: list[MultiTurnTrajectory] = field(default_factory=list)

    @classmethod
    def of(cls, scenario_id: str, episodes: Iterable[MultiTurnTrajectory]) -> TrajectoryGroup:
        """Sort episodes into scored trajectories and failures."""
        group = cls(scenario_id)
        for episode in episodes:
            scored = episode.outcome.scored and episode.reward is not None
            (group.trajectories if scored else group.failures).append(episode)
        return group

    @property
    def rewards(self) -> list[float]:
        """Rewards of the scored trajectories."""
        return [t.reward for t in self.trajectories if t.reward is not None]

    @property
    def teaches(self) -> bool:
        """Whether its rewards, or those of its turns, differ."""
        told = [[t.reward, *t.move_rewards] for t in self.trajectories]
        return any(one != told[0] for one in told)

    @property
    def reward_diversity(self) -> float:
        """Population standard deviation of the rewards; 0 means that the group teaches nothing."""
        return statistics.pstdev(self.rewards) if len(self.trajectories) > 1 else 0.0
