"""The one exception base of the stages."""

from __future__ import annotations


class StageError(Exception):
    """What was being done, to what, what was found, and the next step, in one message.

    A stage prints the message and exits with 1; any other exception is a defect.
    """
