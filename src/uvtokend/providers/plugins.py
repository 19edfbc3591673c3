"""Find the provider of another package by its entry point. Only plug-ins of the wanted name are loaded, so a broken one
does not harm the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, distributions, entry_points

from uvtokend.providers.kit.failures import rejected
from uvtokend.providers.loading import pip

GROUP = "uvtokend.providers"


def one(name: str) -> EntryPoint:
    """Return the only entry point of a name.

    Raises:
        FetchFailed: No entry point has that name, or more than one has it.
    """
    points = claims(name)
    if not points:
        message = f"The provider {name!r} is not installed."
        raise rejected("no-provider", message, "install its package beside uvtokend, or name another provider")
    if len(points) > 1:
        packages = sorted({package(point) for point in points})
        message = f"More than one plug-in provides {name!r}: {', '.join(packages)}."
        raise rejected("ambiguous-provider", message, pip("uninstall", packages[-1]))
    return points[0]


def claims(name: str) -> tuple[EntryPoint, ...]:
    """Return all entry points with a name, including our own package's."""
    try:
        return tuple(entry_points(group=GROUP, name=name))
    except Exception:  # noqa: BLE001 - the entry_points.txt of one package is invalid; it harms only that package
        return tuple(_one_by_one(name))


def package(point: EntryPoint) -> str:
    """Return the name of the package that an entry point comes from."""
    return point.dist.name if point.dist is not None else "?"


def _one_by_one(name: str) -> Iterator[EntryPoint]:
    for installed in distributions():
        try:
            yield from installed.entry_points.select(group=GROUP, name=name)
        except Exception:  # noqa: BLE001, S112 - this is the invalid one
            continue
