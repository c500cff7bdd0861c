"""`./invoke`, as a program."""

from __future__ import annotations

import sys

from cli import answers

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
