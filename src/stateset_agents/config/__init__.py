"""What a run is made of: the config file, profiles, and where every value came from."""

from .environ import Override
from .profiles import PROFILES, Profile
from .resolve import load_config
from .reward_spec import RewardSpec
from .run_config import RunConfig
from .schema import (
    AgentSection,
    ConfigFile,
    EnvironmentSection,
    LoggingSection,
    TensorboardSection,
    WandbSection,
)
from .training import LoraSettings, Plan, TrainingConfig

__all__ = [
    "PROFILES",
    "AgentSection",
    "ConfigFile",
    "EnvironmentSection",
    "LoggingSection",
    "LoraSettings",
    "Override",
    "Plan",
    "Profile",
    "RewardSpec",
    "RunConfig",
    "TensorboardSection",
    "TrainingConfig",
    "WandbSection",
    "load_config",
]
