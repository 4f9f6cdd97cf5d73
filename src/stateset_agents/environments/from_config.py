"""The user that a config asks for.

Invariant: what can be known to be wrong before the first word is a ConfigError or ModelError here: a model that does
not exist or does not fit, an address that is none, an API key that is not there. No weights are loaded and no server
is asked.
"""

from __future__ import annotations

from ..agents.config import AgentConfig
from ..agents.local_chat import LocalChat
from ..config.users import UserSection, UserSpec
from ..core.errors import ConfigError
from ..core.users import ScriptedUser, User
from ..engines.chat_model import ChatModel
from ..engines.endpoint import Endpoint
from .mixed_user import MixedUser
from .model_user import ModelUser


def build_user(section: UserSection | None, agent: AgentConfig) -> User:
    """The user of `environment.user`.

    Args:
        section: filled; None is the scenarios' script.
        agent: whose model a user without a model of its own is a frozen copy of, and whose device and dtype it takes.

    Raises:
        ConfigError: an address or a variable cannot be, or the API key is not there.
        ModelError: the model does not exist, or does not fit.
    """
    if section is None:
        return ScriptedUser()
    if section.users is None:
        return _user(section, agent)
    return MixedUser([(user.share, _user(user, agent)) for user in section.users], seed=section.seed or 0)


def _user(spec: UserSpec, agent: AgentConfig) -> User:
    if spec.type == "scripted":
        return ScriptedUser()
    settings = {
        name: value
        for name in ("temperature", "max_tokens", "seed", "max_turns", "done_marker")
        if (value := getattr(spec, name)) is not None
    }
    return ModelUser(_model(spec, agent), **settings)


def _model(spec: UserSpec, agent: AgentConfig) -> ChatModel:
    if spec.type == "endpoint":
        if spec.base_url is None or spec.model_name is None:
            raise ConfigError('a user of type "endpoint" needs base_url and model_name')
        endpoint = Endpoint(
            spec.base_url,
            spec.model_name,
            api_key_env=spec.api_key_env,
            when_down=spec.when_down or "skip",
            patience=spec.patience,
        )
        endpoint.check()
        return endpoint
    model = LocalChat(
        spec.model_name or agent.model_name,
        dtype=agent.dtype,
        device=agent.device,
        trust_remote_code=agent.trust_remote_code and spec.model_name in (None, agent.model_name),
    )
    if spec.model_name not in (None, agent.model_name):  # the agent's own is checked with it
        model.check()
    return model
