"""The one exception base of this floor."""

from __future__ import annotations


class BuilderError(Exception):
    """What was being done, to what, what was found, and the next step, in one message.

    `tasks` prints the message of this error and exits with 1; any other exception is a defect.
    """
