"""Seams: settings that choose an implementation by name and that plug-ins can extend.

A setting such as ``mask`` takes the name of a built-in, the name of a plug-in that an installed
package provides as an entry point, or an object. Built-ins take precedence over plug-ins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from faceswap.errors import SettingsError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seam:
    """A setting that plug-ins can extend.

    Attributes:
        what: The noun for the setting in error messages, such as "mask".
        group: The entry point group, such as "faceswap.masks".
        built_in: The names of the built-ins, in the order in which help lists them.
        takes_objects: Whether an object is accepted instead of a name.
    """

    what: str
    group: str
    built_in: tuple[str, ...]
    takes_objects: bool = True

    def names(self) -> tuple[str, ...]:
        """Return the names of the built-ins and the installed plug-ins, without importing them."""
        return (*self.built_in, *(name for name in _plugins(self.group) if name not in self))

    def __contains__(self, name: str) -> bool:
        """Return whether a name belongs to a built-in."""
        return name in self.built_in

    def load(self, name: str) -> Any:
        """Import the plug-in with this name.

        Raises:
            SettingsError: If no installed package provides it, or importing it raises an
                ImportError or an AttributeError.
        """
        plugin = _plugins(self.group).get(name)
        if plugin is None:
            raise SettingsError(
                f"{self.what} must be one of {', '.join(self.names())}, not {name!r}"
            )
        try:
            return plugin.load()
        except (ImportError, AttributeError) as error:
            raise SettingsError(
                f"the plug-in {self.what} {name!r} ({plugin.value}) cannot be imported: {error}"
            ) from error


@cache
def _plugins(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group, by name."""
    return {plugin.name: plugin for plugin in entry_points(group=group)}


class Registry(dict[str, T], Generic[T]):
    """The built-in implementations of a seam by name; :meth:`resolve` also loads plug-ins.

    Args:
        seam: The seam; its built-in names must be the keys of ``built_in``.
        built_in: The built-in implementations by name.
    """

    def __init__(self, seam: Seam, built_in: Mapping[str, T]) -> None:
        super().__init__(built_in)
        self.seam = seam

    def resolve(self, choice: str | T) -> T:
        """Return the built-in or plug-in with this name; return an object unchanged.

        Raises:
            SettingsError: If the name is unknown, or the plug-in cannot be imported.
        """
        if not isinstance(choice, str):
            return choice
        if choice in self:
            return self[choice]
        return cast(T, self.seam.load(choice))
