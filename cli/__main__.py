"""`./invoke`, as a program."""

from __future__ import annotations

from cli.invocation import Program
from tasks import GROUPS

Program(GROUPS).run()
