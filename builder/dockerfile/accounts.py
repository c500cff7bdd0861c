"""The numbers of users and groups, where a recipe gives names.

Format: passwd(5) and group(5). Meaning of `user:group`: as in --chown of
https://docs.docker.com/reference/dockerfile/#copy---chown---chmod.
"""

from __future__ import annotations

from collections.abc import Callable

from builder.errors import BuilderError
from builder.oci.numbers import whole

_HIGHEST = 2**32 - 2  # of uid_t; 2**32 - 1 means none (chown(2))
Read = Callable[[str], bytes | None]


def numeric(owner: str) -> bool:
    """Tell whether `owner` is `user` or `user:group` in numbers alone, or empty."""
    user, _, group = owner.partition(":")
    return not owner or (whole(user) is not None and (not group or whole(group) is not None))


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
    uid = gid = whole(user)
    if uid is None or gid is None:
        fields = _fields("etc/passwd", user, owner, read)
        uid, gid = whole(fields[2]), whole(fields[3])
    if group and (gid := whole(group)) is None:
        gid = whole(_fields("etc/group", group, owner, read)[2])
    if uid is None or gid is None or max(uid, gid) > _HIGHEST:
        raise BuilderError(f"{owner}: a user's or group's number is at most {_HIGHEST}")
    return uid, gid


def _fields(path: str, name: str, owner: str, read: Read) -> list[str]:
    for line in (read(path) or b"").decode(errors="replace").splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 3 and whole(fields[2]) is not None and name:
            return fields
    raise BuilderError(
        f"{owner}: the image's /{path} has no {name!r}; write the number, for example 65532:65532"
    )
