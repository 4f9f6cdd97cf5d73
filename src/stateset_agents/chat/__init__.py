"""Messages to token ids and back, by exact prefix."""

from .codec import ChatCodec, Rendering
from .report import TemplateReport, probe

__all__ = ["ChatCodec", "Rendering", "TemplateReport", "probe"]
