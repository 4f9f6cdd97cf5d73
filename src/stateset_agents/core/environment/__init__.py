"""Environments: who speaks next, and when a conversation is over."""

from .base import Environment, EnvironmentState, EpisodeStatus
from .conversation import ConversationEnvironment
from .task import TaskEnvironment, load_tasks, task_completion_function

__all__ = [
    "ConversationEnvironment",
    "Environment",
    "EnvironmentState",
    "EpisodeStatus",
    "TaskEnvironment",
    "load_tasks",
    "task_completion_function",
]
