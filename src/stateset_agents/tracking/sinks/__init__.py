"""Copies of a run's metrics: Weights & Biases, TensorBoard, trackio, MLflow, and what other packages bring."""

from .base import MetricsSink, SamplesSink
from .choice import chosen_sinks
from .delivery import Sinks
from .tensorboard import TensorBoardSink
from .wandb import WandbSink

__all__ = ["MetricsSink", "SamplesSink", "Sinks", "TensorBoardSink", "WandbSink", "chosen_sinks"]
