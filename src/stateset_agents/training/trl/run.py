"""One run under TRL's trainer, from its first line to the trained agent.

Invariant: whatever can be refused is refused before a model is loaded and before a file is written; the run folder is
never overwritten. An error or a cancelled task leaves the folder marked (or free, if nothing was recorded in it), the
model without adapters or patches, and the engine knowing which weights it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from transformers.trainer_callback import PrinterCallback

from ...agents.multi_turn import MultiTurnAgent
from ...checkpoints import PROGRESS, write_checkpoint
from ...checkpoints.locate import step_folder
from ...core.environment import Environment
from ...core.errors import ConfigError, ModelError
from ...core.reward import RewardFunction
from ...engines.local import LocalEngine
from ...models import LoadedModel, has_lora, is_stub, preflight, save_model_folder, weight_bytes
from ...models.devices import choose_device
from ...tracking.layout import REPORT
from ...tracking.logging_setup import also_log_to
from ...tracking.progress import Progress
from ...tracking.redaction import redact_config
from ...tracking.report import RunSummary, training_report
from ...tracking.run_folder import RunFolder
from ...tracking.sinks import Sinks, WandbSink
from ..announce import announce_parts
from ..beforehand import require_tools
from ..order import SeededOrder
from ..room import require_room
from ..run import Say
from ..saving import Subject
from .config import TRLGRPOConfig
from .library import grpo_arguments, import_trl
from .machine import Precision, require_one_gpu, wanted_device
from .plan import TRLPlan, make_plan
from .player import Player, speaking
from .reporter import Reporter
from .rewards import given_reward
from .step import step_of
from .weights import ModelUnderTraining

log = logging.getLogger(__name__)

_GO_ON = (
    "a run under TRL cannot be continued: choose another output_dir (OUTPUT_DIR for the script). To train on from what "
    "a run has reached, take its agent: await load_agent_from_checkpoint(its folder)"
)


@dataclass(frozen=True)
class TRLRun:
    """Everything that a run needs.

    Attributes:
        config: every setting.
        agent: trained in place.
        environment: whose scenarios are played.
        reward: what is trained for.
        quiet: nothing on the terminal.
    """

    config: TRLGRPOConfig
    agent: MultiTurnAgent
    environment: Environment
    reward: RewardFunction
    quiet: bool = False

    async def execute(self) -> str:
        """Train, and write everything to the run folder.

        Returns:
            The documented report.

        Raises:
            ConfigError, DataError, ModelError, RunFolderError: see the message.
            TrainingStopped: the run cannot go on and says why.
            asyncio.CancelledError: the caller gave the run up.
        """
        waits = self._waits_in_main_memory()
        try:
            text = await self._train(waits)
        finally:
            if waits:  # the model is not where the agent's config says: the next use loads it there
                await self.agent.aclose()
        if waits:
            self.agent.load_from(str(RunFolder(Path(self.config.output_dir)).final_model_dir))
        return text

    async def _train(self, waits: bool) -> str:
        plan = make_plan(self.config)
        scenarios = self.environment.episode_scenarios()
        self.reward.require([scenario.to_dict() for scenario in scenarios])
        self._require_trainable()
        require_tools(self.agent, self.environment)
        RunFolder.require_free(self.config.output_dir, go_on=_GO_ON)
        trl = await asyncio.to_thread(import_trl)
        sinks = _sinks(self.config)
        folder = RunFolder.create(self.config.output_dir, config_yaml=self._as_yaml(), go_on=_GO_ON)
        stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
        with folder, also_log_to(folder.path / f"training_{stamp}.log"), Progress() as progress:

            def say(text: str) -> None:
                if not self.quiet:
                    progress.say(text)
                log.info("%s", text)

            loaded, device = await self._load(waits)
            precision = Precision.of(self.config, device)
            player = speaking(self.agent, self.config)
            require_room(player, [self.environment], max_prompt_length=self.config.max_prompt_length)
            self._announce(plan, sinks, say)
            reporter = Reporter(
                folder,
                sinks,
                None if self.quiet else progress,
                self.reward.attainable,
                plan.steps,
                lambda step: self._save(step_folder(folder.checkpoints_dir, step), model, step),
                self.config.save_steps,
            )
            sinks.start(folder.path, self.settings)
            engine = _engine_of(self.agent)
            speaker = Player(
                player, self.environment, self.reward, scenarios, self.config, engine, reporter,
                asyncio.get_running_loop(),
            )  # fmt: skip
            if not self.quiet:
                progress.start(plan.steps)
            told = self.agent.config
            self.agent.config = replace(told, **self.config.sampling)
            try:
                with _published(engine), ModelUnderTraining(loaded, self.config, device) as model:
                    most = player.most_tokens(self.environment.max_turns)
                    arguments = grpo_arguments(
                        self.config, plan, precision, folder.path,
                        temperature=player.config.temperature, max_tokens=most,
                    )  # fmt: skip
                    trainer = self._trainer(trl, arguments, model, speaker, reporter, plan)
                    with _known_warnings():
                        await _in_thread(trainer.train, speaker, reporter)
                    model.keep()
                self._save(folder.final_model_dir, None, len(reporter.rows))
            except BaseException:
                self.agent.config = told
                sinks.close(failed=True)
                raise
            sinks.close()
            folder.set_status("finished", reporter.stop_reason or "")
            progress.close()
            text = self._report(reporter, folder)
            folder.write_text(REPORT, text)
            log.info("%s", text)
            return text

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was told, as JSON."""
        return {
            "agent": asdict(self.agent.config),
            "environment": {
                "max_turns": self.environment.max_turns,
                "persona": getattr(self.environment, "persona", None),
            },
            "rewards": self.reward.to_config(),
            "trl": self.config.model_dump(mode="json"),
        }

    def _as_yaml(self) -> str:
        try:
            plain = json.loads(json.dumps(redact_config(self.settings)))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the settings of the agent, environment or reward are no JSON: {error}") from error
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)

    def _require_trainable(self) -> None:
        """Refuse what is known before the model is loaded."""
        name, agent = self.config.model_name, self.agent
        if "model_name" in self.config.model_fields_set and name != agent.config.model_name:
            raise ConfigError(
                f'model_name is "{name}", but the agent is made of "{agent.config.model_name}": give both the same name'
            )
        if is_stub(agent.config.model_name):
            raise ModelError(f"{agent.config.model_name} has no weights: nothing can be trained")
        temperature = {**asdict(agent.config), **self.config.sampling}["temperature"]
        if temperature <= 0:
            raise ConfigError("temperature is 0: all conversations of a group would be alike, and nothing is learned")
        device = wanted_device(self.config) or agent.config.device
        require_one_gpu(choose_device(device))
        if agent.initialized:
            return
        agent.config = replace(agent.config, device=device)
        preflight(
            agent.config.model_name,
            training=True,
            lora_r=self.config.lora_r if self.config.use_lora else None,
            bits=self.config.bits if self._waits_in_main_memory() else None,
            dtype=agent.config.dtype,
            device=agent.config.device,
            step=step_of(self.config, agent.config, self.environment, choose_device(device)),
            trust_remote_code=agent.config.trust_remote_code,
        )

    def _waits_in_main_memory(self) -> bool:
        """Whether the weights are loaded into main memory, because only rounded ones need to fit on the GPU."""
        if self.config.bits is None or self.agent.initialized:
            return False
        return choose_device(wanted_device(self.config) or self.agent.config.device) != "cpu"

    async def _load(self, waits: bool) -> tuple[LoadedModel, str]:
        """The model, and the device on which it is trained."""
        told = self.agent.config
        if waits:
            self.agent.config = replace(told, device="cpu")
        try:
            await self.agent.initialize()
        finally:
            self.agent.config = told
        loaded = self.agent.runtime.model
        if loaded is None:
            raise ModelError("the agent has no weights: nothing can be trained")
        _engine_of(self.agent)
        if has_lora(loaded):
            raise ConfigError(
                "the agent has LoRA adapters from an earlier training: load the agent from what was saved, where they "
                "are merged"
            )
        device = wanted_device(self.config)
        if waits:
            return loaded, choose_device(told.device)
        if device is not None and loaded.device.type != device.partition(":")[0]:
            raise ConfigError(f'device_map is "{device}", but the agent\'s model is on {loaded.device} already')
        return loaded, str(loaded.device)

    def _announce(self, plan: TRLPlan, sinks: Sinks, say: Say) -> None:
        scenarios = self.environment.episode_scenarios()
        say(f"{plan.summary}, {len(scenarios)} in all")
        for note in self.config.validate():
            say(note)
        announce_parts(self.agent, self.environment, self.reward, say)
        if sinks.sinks and self.config.wandb_samples:
            say(
                f"W&B gets {self.config.wandb_samples} conversations of each round, beside the metrics; "
                "wandb_samples=0 sends none"
            )

    def _trainer(
        self,
        trl: Any,
        arguments: dict[str, Any],
        model: ModelUnderTraining,
        player: Player,
        reporter: Reporter,
        plan: TRLPlan,
    ) -> Any:
        from datasets import Dataset

        order = SeededOrder(self.environment.episode_scenarios(), self.config.seed)
        prompts = [scenario.id for scenario in order.at(0, plan.rounds * plan.groups)]
        with _known_warnings(), _reference(model.loaded, self.config):
            trainer = trl.GRPOTrainer(
                model=model.loaded.model,
                reward_funcs=given_reward,
                args=trl.GRPOConfig(**arguments),
                train_dataset=Dataset.from_dict({"prompt": prompts}),
                processing_class=model.loaded.tokenizer,
                peft_config=model.peft_config,
                rollout_func=player,
                callbacks=[reporter],
            )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _save(self, folder: Path, training: ModelUnderTraining | None, step: int) -> None:
        """Write a checkpoint: of a run under way, or of the trained agent."""
        loaded = self.agent.runtime.model
        assert loaded is not None  # noqa: S101 - it was trained
        weights = None if training is None else training.weights()
        records = Subject(self.agent, self.environment, self.reward, {"run": self.settings}).to_records()
        write_checkpoint(
            folder,
            records=records | {PROGRESS: {"step": step}},
            parts={".": lambda path: save_model_folder(loaded, path, state_dict=weights)},
            part_bytes=weight_bytes(loaded, weights),
        )

    def _report(self, reporter: Reporter, folder: RunFolder) -> str:
        notes = ["Trained by TRL's GRPOTrainer."]
        if reporter.stop_reason:
            notes.append(f"The run {reporter.stop_reason}.")
        summary = RunSummary.of(
            reporter.rows,
            success_criterion=reporter.criterion.describe(reporter.stated),
            attainable=self.reward.attainable,
            saved_to=folder.final_model_dir,
            notes=notes,
        )
        return training_report(summary)


async def _in_thread(train: Callable[[], object], player: Player, reporter: Reporter) -> None:
    """Run TRL's loop in a thread of its own. A cancelled task ends it first: nothing moves the weights afterwards."""
    work = asyncio.ensure_future(asyncio.to_thread(train))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        reporter.stop_requested = True
        player.give_up()
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):  # asked again; the thread ends as soon as it can
                await asyncio.wait({work})
        if not work.cancelled():
            work.exception()  # that it was given up is what counts
        raise


@contextmanager
def _known_warnings() -> Iterator[None]:
    """Hide what TRL and transformers say about each other and about this seam: the version is fixed, so it holds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")
        warnings.filterwarnings("ignore", message=r".*rollout_func", category=UserWarning)
        trainer = logging.getLogger("trl.trainer.grpo_trainer")
        trainer.addFilter(_is_news)
        try:
            yield
        finally:
            trainer.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """TRL shows the text of a conversation that has no reward, every time; we say why, once."""
    return "All reward functions returned None" not in str(record.msg)


@contextmanager
def _published(engine: LocalEngine) -> Iterator[None]:
    """Whatever happens inside, the engine knows afterwards that the weights are others than before."""
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):  # replies that the caller itself waits for; the first error counts
            engine.weights_changed(engine.version + 1)


@contextmanager
def _reference(loaded: LoadedModel, config: TRLGRPOConfig) -> Iterator[None]:
    """The weights before training where TRL looks for its reference model, which it loads by the model's name.

    With adapters it needs none: the model without them is the reference.
    """
    if not config.beta or config.use_lora:
        yield
        return
    name = loaded.model.config._name_or_path  # noqa: SLF001 - transformers offers it under no public name
    with tempfile.TemporaryDirectory(prefix="trl-reference-") as folder:
        save_model_folder(loaded, folder)
        loaded.model.config._name_or_path = folder  # noqa: SLF001
        try:
            yield
        finally:
            loaded.model.config._name_or_path = name  # noqa: SLF001


def _engine_of(agent: MultiTurnAgent) -> LocalEngine:
    engine = agent.runtime.engine
    if not isinstance(engine, LocalEngine):
        raise ModelError("only a model in this process can be trained: the agent's engine is a remote one")
    return engine


def _sinks(config: TRLGRPOConfig) -> Sinks:
    project = config.wandb_project or os.environ.get("WANDB_PROJECT")
    if not project:
        return Sinks()
    entity = config.wandb_entity or os.environ.get("WANDB_ENTITY")
    sink = WandbSink(project, entity, samples=config.wandb_samples)
    try:
        sink.check()
    except ConfigError as error:
        raise ConfigError(
            f"a W&B project is named ({project}), and the package wandb is not installed: "
            "pip install 'grpo-agent-framework[wandb]', or unset wandb_project and WANDB_PROJECT"
        ) from error
    return Sinks([sink])
