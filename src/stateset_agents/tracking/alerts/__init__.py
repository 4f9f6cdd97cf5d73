"""Alerts: rules over a run's metrics and status, and where they are told."""

from .alerts import Alerts

__all__ = ["Alerts"]
