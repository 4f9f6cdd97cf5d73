"""What a run leaves behind and what it shows: the run folder, progress, logging, sinks and the closing report."""

from ..core.secrets import Redactor
from .health import Health, HealthStatus, assess
from .logging_setup import setup_logging
from .progress import Progress
from .redaction import redact_config
from .report import RunSummary, training_report
from .run_folder import RunFolder, read_metrics, read_trajectories
from .sinks import MetricsSink, Sinks, TensorBoardSink, WandbSink
from .status import RunStatus, read_status

__all__ = [
    "Health",
    "HealthStatus",
    "MetricsSink",
    "Progress",
    "Redactor",
    "RunFolder",
    "RunStatus",
    "RunSummary",
    "Sinks",
    "TensorBoardSink",
    "WandbSink",
    "assess",
    "read_metrics",
    "read_status",
    "read_trajectories",
    "redact_config",
    "setup_logging",
    "training_report",
]
