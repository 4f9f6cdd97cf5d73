"""Environments and users that need a model or a service."""

from .mixed_user import MixedUser
from .model_user import BadLine, ModelUser
from .user_prompt import user_prompt

__all__ = ["BadLine", "MixedUser", "ModelUser", "user_prompt"]
