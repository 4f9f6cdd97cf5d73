"""Messages to token ids and back, by exact prefix."""

from .codec import ChatCodec, Rendering
from .growing import GrowingText
from .report import TemplateReport, probe

__all__ = ["ChatCodec", "GrowingText", "Rendering", "TemplateReport", "probe"]
