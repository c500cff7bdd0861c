"""`./invoke`, as a program."""

from __future__ import annotations

import gc
import sys

from cli import answers

# What is imported stays, yet Python would look for garbage after each 700 objects: 30 ms of a task.
gc.set_threshold(50_000)
if not answers.given(sys.argv[1:]):
    from functools import partial

    from cli.line import read
    from cli.output import ended
    from tasks import GROUPS

    if found := read(sys.argv[1:], GROUPS):
        command, values = found
        answers.begin(sys.argv[1:])
        ended(partial(command, **values), bool(values.get("json")))
    else:
        from cli.invocation import Program

        Program(GROUPS).run()
