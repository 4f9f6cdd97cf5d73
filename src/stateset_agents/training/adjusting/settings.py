"""The settings that a run may move, as they are for the next step.

Invariant: whatever they are, a step has as many conversations as it was configured to have. A setting that the
algorithm has no use for is never moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...config.training import TrainingConfig

ONE = 1.0
"""The temperature of the model's own distribution."""


@dataclass(frozen=True)
class Settings:
    """Attributes: `config`, with every setting but these two; `temperature` of sampler and learner; `rests`, whether
    scenarios that taught nothing lately are passed over.
    """

    config: TrainingConfig
    temperature: float
    rests: bool = False

    def value(self, name: str) -> float:
        """Of a setting that may move."""
        if name == "temperature":
            return self.temperature
        if name == "curriculum":
            return float(self.rests)
        return float(getattr(self.config, name))

    def moved(self, name: str, value: float) -> Settings:
        """The same with another value of one of them."""
        if name == "temperature":
            return Settings(self.config, value, self.rests)
        if name == "curriculum":
            return Settings(self.config, self.temperature, bool(value))
        held: Any = int(value) if name == "num_generations" else value
        values = {**self.config.model_dump(), name: held}
        return Settings(TrainingConfig.model_validate(values), self.temperature, self.rests)

    def can_move(self, name: str) -> bool:
        """Whether the algorithm has a use for it."""
        config, uses = self.config, self.config.recipe.uses
        if config.data_file is not None:
            return False
        if name == "learning_rate":
            return config.recipe.kind != "natural"  # the length of a natural step follows from max_kl
        if name == "beta":
            return "beta" in uses and config.beta > 0 and config.recipe.kind == "policy"
        if name == "clip_high":
            return "clip_high" in uses and config.num_iterations > 1
        if name == "num_generations":
            return name in uses and config.recipe.baseline in ("group", "leave_one_out")
        return True
