"""The one exception base of this floor."""

from __future__ import annotations


class PipelineError(Exception):
    """What was being done, to what, what was found, and the next step, in one message."""
