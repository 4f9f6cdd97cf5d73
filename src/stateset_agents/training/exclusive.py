"""What every way of training shares around a run: one at a time for each agent, and memory that ran out explained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..agents import Agent
from ..core.errors import ConfigError, ModelError, first_line

_IN_TRAINING: set[int] = set()
"""The agents that are trained at this moment, by `id`: two runs would change the same weights under each other."""

ADVICE = (
    "use the profile conservative (smaller micro-batches, recomputed activations), a smaller batch_size or\n"
    "  max_new_tokens, lora, or --no-gpu (device cpu) to train in the machine's main memory"
)


@contextmanager
def only_run_of(agent: Agent) -> Iterator[None]:
    """Within this block no other run may train the agent.

    Raises:
        ConfigError: one does already.
    """
    if id(agent) in _IN_TRAINING:
        raise ConfigError("this agent is being trained already: wait for that run, or make another agent")
    _IN_TRAINING.add(id(agent))
    try:
        yield
    finally:
        _IN_TRAINING.discard(id(agent))


def out_of_memory(error: BaseException, advice: str = ADVICE) -> ModelError:
    """An out-of-memory error with what would help."""
    explained = ModelError(f"out of memory: {first_line(error)}\n  {advice}")
    for note in getattr(error, "__notes__", ()):
        explained.add_note(note)
    return explained
