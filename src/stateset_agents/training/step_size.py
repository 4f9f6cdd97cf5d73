"""How large a step is, and what it holds in memory: asked before a model is loaded.

Invariant: an estimate from below, so that a run which would do is not refused. It assumes that replies are half as long
as `max_new_tokens` lets them be and that no tool is called, that conversations without a script take half their turns
and their users say nothing, that four bytes of text are a token, that attention keeps no scores, that the keys of an
opening are copied for one conversation, and that bfloat16 is computed in wherever it is asked for. Within that it
follows the engine and the learner: slots of the engine's own capacities, doubled until every conversation in flight has
one; a pass that reads the opening of a group once; what autograd keeps of a layer, tensor by tensor; logits in the
learner's own blocks; and the second copies of the weights that a run keeps beside those it trains.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..agents.config import AgentConfig
from ..chat.tool_format import FORMATS
from ..config.training import TrainingConfig
from ..core.environment import ConversationEnvironment, Environment
from ..core.records import Message, Record
from ..core.tools import Tool
from ..core.users import ScriptedUser
from ..engines.cache import KeyValueCache, Pool
from ..engines.layout import available
from ..engines.passes import SMALL_MODEL
from ..models import StepMemory
from ..models.facts import ModelFacts
from ..models.memory import Memory
from ..models.preflight import choose_dtype
from .logprobs import BLOCK, ROWS

_TAKEN = 0.5
"""Share of what a reply and a conversation without a script may become that they are taken to be."""
_BYTES_PER_TOKEN = 4
_FRAME = 5
"""Tokens that a chat template puts around a message: two marks, the role and two line ends in ChatML and its kin."""
_LLAMA_BLOCKS = frozenset(
    "ernie4_5 exaone4 gemma gemma3 gemma3_text glm glm4 granite helium hunyuan_v1_dense llama mistral "
    "mixtral olmo2 olmo3 phi3 qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3".split()
)
"""Types of models seen to keep what a Llama block keeps, or more: norms in float32, and a gate in the MLP. Any other is
taken to keep what the plainest block does: norms as they are computed, and a ReLU."""
_TRAJECTORY_BYTES = 200
"""A token of a conversation: id, mask and log-prob as Python has them, in its turn and its row, and its columns in the
packed batch."""


@dataclass(frozen=True)
class StepSize:
    """A step in conversations and tokens; called with a model and a place, what it holds there.

    Attributes:
        opening: tokens that the conversations of a group begin with.
        rest: tokens of a conversation after its opening.
        in_flight: conversations that are played at once.
        group: conversations that share an opening.
        per_pass: conversations in one forward and backward pass.
        per_step: conversations of the step.
        half: whether the model computes in bfloat16.
        recomputes: whether activations are computed again instead of kept.
        dtype: in which the model is loaded.
        adapters: whether only adapters are trained.
        reference: whether there is a KL to a reference.
        recasts: whether frozen weights that were loaded in float32 are kept in bfloat16 too.
        everywhere: whether every linear layer of a block is trained or has an adapter.
    """

    opening: int
    rest: int
    in_flight: int
    group: int
    per_pass: int
    per_step: int
    half: bool
    recomputes: bool
    dtype: str
    adapters: bool
    reference: bool
    recasts: bool = True
    everywhere: bool = True

    @classmethod
    def of(
        cls,
        config: TrainingConfig,
        agent: AgentConfig,
        environment: Environment,
        records: Sequence[Record] | None = None,
        tools: Sequence[Tool] = (),
    ) -> StepSize:
        """The size of a run's steps.

        Args:
            config, agent, environment: of the run.
            records: what it learns from, for a run that plays nothing.
            tools: of which the agent is told.
        """
        per_step = config.plan.conversations_per_step
        if records is None:
            opening, rest = played(agent, environment)
        else:
            opening, rest = _read(records)
            per_step *= len(records[0].answers)
        # In its shortest form; most chat templates take more words for it.
        told_of_tools = FORMATS["json"].instructions([tool.definition() for tool in tools]) if tools else ""
        return cls(
            opening=opening + int(_tokens(told_of_tools)),
            rest=rest,
            in_flight=min(config.max_concurrent, per_step) if records is None else 0,
            group=config.num_generations if records is None else len(records[0].answers),
            per_pass=min(config.batch_size, per_step),
            per_step=per_step,
            half=config.mixed_precision,
            recomputes=config.gradient_checkpointing,
            dtype=agent.dtype,
            adapters=config.lora is not None,
            reference=config.beta > 0 and config.recipe.kind in ("policy", "preference"),
            everywhere=config.lora is None or config.lora.target_modules is None,
        )

    def __call__(self, facts: ModelFacts, memory: Memory) -> StepMemory:
        """Bytes that a step holds; see `models.preflight`."""
        width = 2 if self.half else 4
        opening, rest = self.opening, self.rest
        if facts.context:
            opening = min(opening, facts.context)
            rest = min(rest, facts.context - opening)
        slots = Pool.slots_for(self.in_flight) * KeyValueCache.capacity_for(opening + rest)
        read = opening * math.ceil(self.per_pass / self.group) + rest * self.per_pass
        kept = kept_by_layer(facts, width, adapters=self.adapters, everywhere=self.everywhere)
        kept = facts.layers * facts.hidden * width + kept if self.recomputes else facts.layers * kept
        logits = facts.vocabulary * (min(BLOCK, read) * width + 3 * min(ROWS, read) * 4)
        head = 0 if self.adapters else facts.vocabulary * facts.hidden * width  # its gradient comes first
        return StepMemory(
            copies=facts.parameters * self._copies(facts, on_gpu=memory.place != "RAM"),
            cache=slots * facts.kv_elements_per_token * width,
            activations=read * kept + logits + head,
            conversations=self.per_step * (opening + rest) * _TRAJECTORY_BYTES,
        )

    def _copies(self, facts: ModelFacts, *, on_gpu: bool) -> int:
        """Bytes for each parameter, beside the weights that `preflight` counts."""
        count = 0
        if self.reference and not self.adapters:
            count += 2 if self.half else 4
        if self.recasts and self.adapters and self.half and choose_dtype(self.dtype, facts, on_gpu=on_gpu) == "float32":
            count += 2  # the learner computes in bfloat16, and keeps what was loaded for the end
        if self.half and not on_gpu and facts.parameters < SMALL_MODEL and available():
            count += 2  # the engine's layout, which goes when the weights have changed
        return count


def kept_by_layer(facts: ModelFacts, width: int, *, adapters: bool = False, everywhere: bool = True) -> int:
    """Bytes that a decoder layer keeps of a token for the gradient, at least.

    Args:
        facts: of the model.
        width: bytes of a number as it is computed.
        adapters: whether only adapters are trained: frozen norms do not keep what they make of their input.
        everywhere: whether every linear layer is trained or has an adapter: others do not keep their input.
    """
    llama = facts.model_type in _LLAMA_BLOCKS
    keys_and_values = facts.kv_elements_per_token // max(1, facts.layers)
    attention = 2 * facts.queries + 2 * keys_and_values  # queries and output; keys and values alone and behind a prefix
    mlp = 3 * facts.inner if llama else facts.inner  # gate, activated gate and up; or what a ReLU makes
    norms = 2 * facts.hidden * (4 if llama else width)  # the input of each
    if llama and not adapters:
        norms += 2 * facts.hidden * width
    read_by_matrices = 2 * facts.hidden + facts.queries if everywhere else 0
    if llama and everywhere:
        read_by_matrices += facts.inner  # a ReLU keeps it in any case
    return norms + (attention + mlp + read_by_matrices) * width


def longest(environment: Environment) -> int:
    """Assistant turns of the longest conversation that can be: a scripted user does not go beyond its script."""
    scripts = _scripts(environment)
    return min([environment.max_turns, *([max(map(len, scripts))] if scripts else [])])


def _scripts(environment: Environment) -> list[tuple[str, ...]]:
    """What scripted users say; nothing where there are none."""
    if not isinstance(environment, ConversationEnvironment) or not isinstance(environment.user, ScriptedUser):
        return []
    return [scenario.user_responses for scenario in environment.scenarios]


def played(agent: AgentConfig, environment: Environment) -> tuple[int, int]:
    """Tokens of the opening and of the rest of a conversation, on average over the environment's scenarios."""
    scripts = [script[: environment.max_turns] for script in _scripts(environment)]
    turns = _mean([len(script) for script in scripts]) if scripts else environment.max_turns * _TAKEN
    told = [
        _message((agent.system_prompt or "") + (scenario.agent_context or ""))
        for scenario in environment.episode_scenarios()
    ]
    first = _FRAME + _mean([_tokens("".join(script[:1])) for script in scripts])
    later = _mean([_tokens("".join(script[1:])) for script in scripts])
    framed = max(0.0, 2 * turns - 1) * _FRAME
    return int(_mean(told) + first), int(later + framed + turns * agent.max_new_tokens * _TAKEN)


def _read(records: Sequence[Record]) -> tuple[int, int]:
    opening = _mean([sum(map(_said, record.prompt)) for record in records])
    answers = [answer for record in records for answer in record.answers]
    return int(opening), int(_mean([sum(map(_said, answer)) for answer in answers]))


def _said(message: Message) -> float:
    """Tokens of a recorded message; its calls are written as JSON, whatever stands around them."""
    calls = message.get("tool_calls")
    return _FRAME + _tokens(message["content"]) + (_tokens(json.dumps(calls, ensure_ascii=False)) if calls else 0.0)


def _message(text: str) -> float:
    """Tokens of a message in its frame; one that says nothing is left out."""
    return _FRAME + _tokens(text) if text else 0.0


def _tokens(text: str) -> float:
    return len(text.encode(errors="replace")) / _BYTES_PER_TOKEN


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
