"""Checks that a version of uvicorn or gunicorn has what the server builds on, most of which is not documented."""

from collections.abc import Collection


def require_members(owner: type, methods: Collection[str], attributes: Collection[str], *others: type) -> None:
    """Raises ImportError or AttributeError, upon which the caller does without, if a class lacks a member.

    Args:
        owner: the class.
        methods: its methods and properties.
        attributes: what its constructor sets, or that of one of ``others``.
        others: classes whose instances the owner creates.
    """
    found = {name for one in (owner, *others) for name in one.__init__.__code__.co_names}  # type: ignore[misc]  # of exactly these classes
    missing = (set(methods) - set(dir(owner))) | (set(attributes) - found)
    if missing:
        raise ImportError(f"{owner.__name__} has no {', '.join(sorted(missing))}")
