"""The numbers of users and groups, where a recipe gives names.

Format: passwd(5) and group(5). Meaning of `user:group`: as in --chown of
https://docs.docker.com/reference/dockerfile/#copy---chown---chmod.
"""

from __future__ import annotations

from collections.abc import Callable

from builder.errors import BuilderError

Read = Callable[[str], bytes | None]


def numeric(owner: str) -> bool:
    """Tell whether `owner` is `user` or `user:group` in numbers alone, or empty."""
    user, _, group = owner.partition(":")
    return not owner or (user.isdigit() and (not group or group.isdigit()))


def complete(owner: str, what: str) -> str:
    """Return `owner`; raises BuilderError where the user or the group beside a colon is empty.

    An engine takes an empty one for root's, which a variable without a value must never lead to.
    """
    user, colon, group = owner.partition(":")
    if not user or (colon and not group):
        raise BuilderError(
            f"{what} {owner!r} has no {'group' if user else 'user'}, which would be root's; write "
            "user or user:group, and give every variable in it a value"
        )
    return owner


def numbers(owner: str, read: Read) -> tuple[int, int]:
    """Return uid and gid of `user` or `user:group`; `read` gives a file of the image, or None.

    The group of a number alone is that number, of a name alone the user's own. Raises BuilderError
    for names that the image's /etc/passwd and /etc/group lack.
    """
    user, _, group = owner.partition(":")
    found = [user, user] if user.isdigit() else _fields("etc/passwd", user, owner, read)[2:4]
    if group:
        found[1] = group if group.isdigit() else _fields("etc/group", group, owner, read)[2]
    return int(found[0]), int(found[1])


def _fields(path: str, name: str, owner: str, read: Read) -> list[str]:
    for line in (read(path) or b"").decode(errors="replace").splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 3 and fields[2].isdigit() and name:
            return fields
    raise BuilderError(
        f"{owner}: the image's /{path} has no {name!r}; write the number, for example 65532:65532"
    )
