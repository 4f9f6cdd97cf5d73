"""Environments and users that need a model or a service."""

from .from_config import build_user
from .mixed_user import MixedUser
from .model_user import BadLine, ModelUser
from .user_prompt import user_prompt

__all__ = ["BadLine", "MixedUser", "ModelUser", "build_user", "user_prompt"]
