"""Demonstrations: read any common format, name what cannot be used, hold some out."""

from demoalign.demonstrations.formats import FORMATS
from demoalign.demonstrations.inspect import CountTokens, DataSummary, Lengths, inspect, too_long
from demoalign.demonstrations.preferences import read_preferences
from demoalign.demonstrations.reader import (
    Demonstrations,
    Split,
    Stream,
    read_demonstrations,
    stream_demonstrations,
    write_rejected,
)
from demoalign.demonstrations.rows import Rejected
from demoalign.demonstrations.split import refuse_shared_prompts, without_shared_prompts

__all__ = [
    "FORMATS",
    "CountTokens",
    "DataSummary",
    "Demonstrations",
    "Lengths",
    "Rejected",
    "Split",
    "Stream",
    "inspect",
    "read_demonstrations",
    "read_preferences",
    "refuse_shared_prompts",
    "stream_demonstrations",
    "too_long",
    "without_shared_prompts",
    "write_rejected",
]
