"""What a run refuses before it makes anything.

Invariant: whatever can be known without loading the model is refused here, and nothing is written: a dry run asks the
same questions as the run itself. What is left to go wrong afterwards is the model's doing, the machine's or the user's
code's.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from ..agents import MultiTurnAgent, ToolAgent
from ..checkpoints import Checkpoint
from ..core.environment import Environment
from ..core.errors import ConfigError, ModelError
from ..core.records import Record
from ..models import is_stub, preflight
from ..models.preflight import MemoryEstimate
from ..tracking.disk import require_makeable
from ..tracking.layout import LOCK, OWN_NAMES
from ..tracking.run_folder import RunFolder
from ..tracking.sinks import chosen_sinks
from .alerting import require_alerts
from .resume import find_start, has_state
from .run import Run
from .step_size import StepSize
from .stopping import require_a_mean_to_watch
from .waiting import require_time_to_wait


def require_possible(run: Run, data: Sequence[Record] | None) -> Checkpoint | None:
    """Refuse what settings, data and folders rule out.

    Args:
        run: of which nothing is made yet.
        data: what it learns from, if that is a file.

    Returns:
        The checkpoint that `run.resume_from` means.

    Raises:
        ConfigError, DataError, ModelError, CheckpointError, RunFolderError: see the message.
    """
    if run.resume and run.resume_from is not None:
        raise ConfigError("resume continues the run in output_dir, resume_from starts a new one: give one of them")
    if run.resume and run.folder is None:
        raise ConfigError("resume continues the run in output_dir: give it")
    start = None if run.resume_from is None else find_start(run.resume_from)
    if is_stub(run.agent.config.model_name):
        if data is not None:
            raise ModelError("a model without weights learns nothing from a file: take one with weights")
        if start is not None:
            raise ModelError("a run can only begin from a checkpoint with a model that has weights: a stub has none")
    elif start is not None:
        has_state(start, adapters=run.config.lora is not None)
    require_tools(run.agent, run.environment, run.evaluation)
    try:
        require_a_mean_to_watch(run.config, run.reward)
    except ConfigError as error:
        raise ConfigError(run.located("training.early_stopping", str(error))) from None
    _require_a_log_file_of_its_own(run)
    _require_sinks(run)
    require_time_to_wait(run)
    require_alerts(run)
    if run.folder is not None:
        RunFolder.require_ready(run.folder, resume=run.resume)
    return start


def require_memory(run: Run, data: Sequence[Record] | None) -> MemoryEstimate | None:
    """Refuse a model, or a step of it, that does not exist or cannot fit.

    Args:
        run: of which nothing is made yet.
        data: what it learns from, if that is a file.

    Returns:
        What it needs; None for a model without weights.

    Raises:
        ModelError: see `preflight`.
    """
    loaded = run.agent.runtime.model if run.agent.initialized else None
    if run.agent.initialized and loaded is None:
        return None
    tools = run.agent.offered() if isinstance(run.agent, ToolAgent) else ()
    return preflight(
        run.agent.config.model_name,
        training=True,
        lora_r=None if run.config.lora is None else run.config.lora.r,
        dtype=run.agent.config.dtype,
        device=run.agent.config.device,
        step=StepSize.of(run.config, run.agent.config, run.environment, data, tools),
        trust_remote_code=run.agent.config.trust_remote_code,
        loaded=loaded,
    )


def require_tools(agent: MultiTurnAgent, *environments: Environment | None) -> None:
    """Refuse scenarios that ask for what the agent's tools can never do.

    Raises:
        DataError: see `Environment.require_tools`.
    """
    if isinstance(agent, ToolAgent):
        tools = agent.offered()
    elif type(agent).process_turn is MultiTurnAgent.process_turn:
        tools = []
    else:  # an override may make calls that nobody knows of
        return
    for environment in environments:
        if environment is not None:
            environment.require_tools(tools)


def _require_a_log_file_of_its_own(run: Run) -> None:
    """Lines of the log among the metrics would be read as metrics, and complained about in the log."""
    if run.log_file is None or run.folder is None:
        return
    folder = run.folder.resolve()
    given = folder / Path(run.log_file).expanduser()
    file = given.resolve()
    first = file.relative_to(folder).parts[:1] if file.is_relative_to(folder) else ("elsewhere",)
    if not first or first[0] in (*OWN_NAMES, LOCK):
        taken = first[0] if first else "the run folder itself"
        message = f'logging.log_file is "{run.log_file}", but {taken} is written by the run: give another name.'
        raise ConfigError(run.located("logging.log_file", message))
    try:
        require_makeable(file)
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    except OSError as error:
        message = (
            f'logging.log_file is "{run.log_file}", which cannot be written ({error.strerror}).\n'
            "  name a file in a folder that you may write, or leave the key out"
        )
        raise ConfigError(run.located("logging.log_file", message)) from error


def _require_sinks(run: Run) -> None:
    """What copies the metrics must be installed, and have a place."""
    if run.source is None or run.folder is None:
        return
    try:
        sinks = chosen_sinks(run.source.logging, run.folder)
    except ConfigError as error:
        raise ConfigError(run.located("logging.trackers", str(error))) from error
    for sink in sinks:
        sink.check()
    board = run.source.logging.tensorboard
    if board is None or board.log_dir is None:
        return
    place = Path(board.log_dir)
    try:
        require_makeable(place)
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    except OSError as error:
        message = f'logging.tensorboard.log_dir is "{board.log_dir}", which cannot be written ({error.strerror}).'
        raise ConfigError(run.located("logging.tensorboard.log_dir", message)) from error
