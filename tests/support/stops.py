"""Stop a command of the library after some progress, as Ctrl-C would."""

from faceswap.media import writers


class Stopped(Exception):
    pass


def is_check(event):
    """Return whether progress is that of the look for explicit footage, before any work."""
    return event.unit.endswith("checked")


def stop_after(count, unit=None):
    """Return an ``on_progress`` that stops the work when ``count`` items are done, not checked.

    Args:
        count: After how many.
        unit: What the items are called; None for any.
    """

    def progress(event):
        if event.done == count and not is_check(event) and unit in (None, event.unit):
            raise Stopped

    return progress


def stop_before_stream(monkeypatch, stream):
    """Stop when a stream's segments are about to be joined, after other outputs were published."""
    join = writers._join_segments

    def joining(name, *arguments):
        if name == stream:
            raise Stopped
        join(name, *arguments)

    monkeypatch.setattr(writers, "_join_segments", joining)
