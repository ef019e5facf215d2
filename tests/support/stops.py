"""Stop a command of the library after some progress, as Ctrl-C would."""


class Stopped(Exception):
    pass


def stop_after(count):
    """Return an ``on_progress`` that stops the work when ``count`` items are done, not checked."""

    def progress(event):
        if event.done == count and not event.unit.endswith("checked"):
            raise Stopped

    return progress
