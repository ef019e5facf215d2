"""Write Nuke scripts: nodes, their knobs and links, as Nuke saves them.

A script is a list of commands that work on a stack. A node takes its inputs from the top of the
stack, the first one first, and puts itself there. ``set`` names the node at the top, and ``push``
puts a named node there again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SPECIAL = r"\"[${}"  # characters that mean something to Tcl, in a script
ROW, COLUMN = 100, 220  # pixels between nodes in the node graph


@dataclass(slots=True)
class Script:
    """A Nuke script that grows node by node."""

    _lines: list[str] = field(default_factory=list)

    def add(
        self, kind: str, name: str, inputs: Sequence[str] = (), at: tuple[int, int] = (0, 0),
        **knobs: Any,
    ) -> str:  # fmt: skip
        """Add a node.

        Args:
            kind: Its class, such as "Merge2".
            name: Its name.
            inputs: Names of the nodes at its inputs, from input 0 on.
            at: Its column and row in the node graph.
            knobs: Values of its knobs. Text is quoted, lists become lists of Tcl, and a dict is an
                animation: values by frame.

        Returns:
            The name.
        """
        for node in reversed(inputs):
            self._lines.append(f"push $N_{node}")
        self._lines.append(f"{kind} {{")
        self._lines.append(f" inputs {len(inputs)}")
        self._lines += [f" {knob} {_value(value)}" for knob, value in knobs.items()]
        self._lines += [f" name {name}", f" xpos {at[0] * COLUMN}", f" ypos {at[1] * ROW}", "}"]
        self._lines.append(f"set N_{name} [stack 0]")
        return name

    def layer(self, name: str, channels: Sequence[str]) -> None:
        """Declare a layer and its channels, such as "red"."""
        listed = " ".join(f"{name}.{channel}" for channel in channels)
        self._lines.append(f"add_layer {{{name} {listed}}}")

    def root(self, **knobs: Any) -> None:
        """Set knobs of the script itself."""
        self._lines += ["Root {", " inputs 0"]
        self._lines += [f" {knob} {_value(value)}" for knob, value in knobs.items()]
        self._lines.append("}")

    @property
    def text(self) -> str:
        """The whole script."""
        return "\n".join(self._lines) + "\n"


def literal(text: str, special: str = r"\[$") -> str:
    """Return text that stands for itself where Tcl replaces commands and variables.

    Args:
        text: The text.
        special: The characters that would be replaced [default: those in the text of a knob].
    """
    return "".join(f"\\{letter}" if letter in special else letter for letter in text)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    if isinstance(value, Mapping):
        return f"{{{_curve(value)}}}"
    if isinstance(value, str):
        return value if value.isidentifier() else f'"{literal(value, SPECIAL)}"'
    inside = [f"{{{_curve(v)}}}" if isinstance(v, Mapping) else _value(v) for v in value]
    return f"{{{' '.join(inside)}}}"


def _curve(values: Mapping[int, float]) -> str:
    """Return an animation with a key at each frame."""
    return "curve " + " ".join(f"x{frame} {value:.6g}" for frame, value in values.items())
