"""A linear head on a frozen model, and the folder that it is kept in.

Invariant: the value of a conversation is weight . vector + bias, where the vector is the backbone's (`backbone.py`),
and nothing else enters it. A folder that is loaded gives the very values of what was saved into it, or is refused: it
names the model with the hashes of its weights, and its manifest holds its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from ..core.errors import CheckpointError, ModelError
from .backbone import POOLINGS, Backbone

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "learned-reward"
VERSION = 1
HEAD, RECORD = "head", "reward"
CHANCE = 0.5


@dataclass(frozen=True)
class FitReport:
    """How a head was fitted, and how well it orders pairs that had no part in it.

    Attributes:
        accuracy: share of the held-out pairs that it orders as they were given.
        low, high: its 95 % interval.
        held_out: pairs that had no part in the fit.
        fitted: pairs whose loss was minimised.
        watched: pairs that said when to stop.
        prompts: different beginnings of the conversations.
        unit: what was held out as a whole: "prompt", or "pair" where there are too few prompts; the accuracy then holds
            for these prompts alone.
        steps: of the descent.
        loss, watched_loss: mean of -log sigmoid(chosen - rejected) over the fitted and the watched pairs; 0.693 is that
            of a toss of a coin.
        l2: weight of the penalty.
        seed: of the split.
    """

    accuracy: float
    low: float
    high: float
    held_out: int
    fitted: int
    watched: int
    prompts: int
    unit: str
    steps: int
    loss: float
    watched_loss: float
    l2: float
    seed: int

    @property
    def better_than_chance(self) -> bool:
        """Whether the interval leaves out a toss of a coin."""
        return self.low > CHANCE

    def text(self) -> str:
        """For example `orders 0.889 of 27 held-out pairs right (95 % interval 0.719 to 0.961)`."""
        words = (
            f"orders {self.accuracy:.3f} of {self.held_out} held-out pairs right "
            f"(95 % interval {self.low:.3f} to {self.high:.3f}), fitted on {self.fitted} pairs"
        )
        if self.unit == "pair":
            words += f" of only {self.prompts} prompts, so that nothing is known about others"
        return words if self.better_than_chance else f"{words}; that cannot be told from a toss of a coin"


@dataclass(frozen=True)
class PreferenceModel:
    """What values conversations.

    Attributes:
        backbone: the frozen model.
        weight: (width,) of the head, float64.
        bias: of the head.
        reads_system_prompt: whether the pairs that it was fitted on had system messages.
        report: of the fit.
    """

    backbone: Backbone
    weight: Tensor
    bias: float
    reads_system_prompt: bool
    report: FitReport

    def value(self, messages: Sequence[Mapping[str, str]]) -> float:
        """Standard deviations above the mean of the conversations that it was fitted on.

        Raises:
            DataError, ModelError: see `Backbone.read`.
            ModelError: the head is not of the backbone's width.
        """
        vector = self.backbone.vector(*self.backbone.read(messages))
        if vector.shape != self.weight.shape:
            raise ModelError(
                f"the learned reward has {len(self.weight)} weights, but {self.backbone.name} gives {len(vector)} "
                "numbers: it was fitted on another model"
            )
        return float(self.weight @ vector) + self.bias

    def save(self, folder: str | Path, *, replace: bool = False) -> tuple[Path, str]:
        """Write head and report; the backbone is named, not copied.

        Returns:
            The folder and the SHA-256 of the head.

        Raises:
            CheckpointError: the folder is taken.
            RunFolderError: it cannot be written.
        """
        record = {
            "format": FORMAT,
            "version": VERSION,
            "backbone": {
                "identity": self.backbone.model.identity,
                "dtype": self.backbone.dtype,
                "pooling": self.backbone.pooling,
            },
            "reads_system_prompt": self.reads_system_prompt,
            "report": asdict(self.report),
        }
        tensors = {HEAD: {"weight": self.weight, "bias": self.weight.new_tensor([self.bias])}}
        path = write_checkpoint(folder, tensors=tensors, records={RECORD: record}, replace=replace)
        return path, head_hash(read_checkpoint(path))

    @classmethod
    def load(cls, checkpoint: Checkpoint, *, device: str | None = None) -> Self:
        """Read what `save` wrote. The backbone is loaded, and compared with the one that is named, on first use.

        Args:
            checkpoint: the opened folder.
            device: of the backbone.

        Raises:
            CheckpointError: it holds something else, or is of a later format.
        """
        path = checkpoint.path
        head_hash(checkpoint)
        record, tensors = checkpoint.record(RECORD), checkpoint.tensors(HEAD)
        try:
            if record["format"] != FORMAT or record["version"] != VERSION:
                raise CheckpointError(
                    f"{path} holds {record['format']!r} of version {record['version']!r}; this release reads "
                    f"{FORMAT!r} of version {VERSION}"
                )
            base, report = record["backbone"], FitReport(**record["report"])
            identity, dtype, pooling = dict(base["identity"]), str(base["dtype"]), base["pooling"]
            name, reads_system_prompt = str(identity["name"]), bool(record["reads_system_prompt"])
            weight, bias = tensors["weight"], tensors["bias"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is no learned reward: {type(error).__name__}: {error}") from error
        if pooling not in POOLINGS or weight.ndim != 1 or bias.shape != (1,):
            raise CheckpointError(
                f"{path} is no learned reward: pooling {pooling!r}, head {list(weight.shape)}, bias {list(bias.shape)}"
            )
        backbone = Backbone(name, pooling, dtype=dtype, device=device, expected=identity)
        return cls(backbone, weight.double(), float(bias[0]), reads_system_prompt, report)


def head_hash(checkpoint: Checkpoint) -> str:
    """SHA-256 of the head's file.

    Raises:
        CheckpointError: there is none.
    """
    manifest = checkpoint.manifest
    if HEAD not in manifest.tensors or RECORD not in manifest.records:
        raise CheckpointError(f"{checkpoint.path} holds no learned reward; LearnedReward.save writes one")
    return manifest.files[f"{HEAD}.safetensors"].sha256
