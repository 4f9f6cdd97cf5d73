"""What a run leaves behind and what it shows: the run folder, progress, logging, sinks and the closing report."""

from .run_folder import RunFolder, read_metrics, read_trajectories
from .status import RunStatus, read_status

__all__ = ["RunFolder", "RunStatus", "read_metrics", "read_status", "read_trajectories"]
