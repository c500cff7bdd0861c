"""The one exception base of the stages."""

from __future__ import annotations


class StageError(Exception):
    """What was being done, to what, what was found, and the next step, in one message.

    A stage prints the message and exits with 1; any other exception is a defect.
    """


class MachineError(StageError):
    """It is not the input's fault but the machine's: a full disk, a worker without memory.

    One broken plate must not stop a run over many; this must, since the next one fares no better.
    """
