"""Serve the app on this machine until Ctrl-C."""

import secrets
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from faceswap.errors import OutputError, SettingsError
from faceswap.review.workspace import Workspace

if TYPE_CHECKING:
    import uvicorn

HOST = "127.0.0.1"  # other machines cannot reach it
MAX_CONNECTIONS = 200  # at once; others are told to come back later


def review(
    folder: str | Path, port: int = 0, on_ready: Callable[[str], None] = lambda _: None
) -> None:
    """Show the workspace in a folder in the browser until Ctrl-C.

    Args:
        folder: The folder that holds ``data`` and ``models``.
        port: The port; 0 takes a free one.
        on_ready: Called with the address to open, which answers then.

    Raises:
        InputError: If the folder does not exist.
        SettingsError: If ``faceswap[review]`` is not installed.
        OutputError: If the port cannot be used.
    """
    with closing(prepare(Path(folder), port)) as served, suppress(KeyboardInterrupt):
        on_ready(served.address)
        served.run()  # until Ctrl-C


class Served:
    """A server that listens.

    Args:
        server: The server.
        listener: The socket that it listens on.
        helpers: What is closed with it.
        address: The address to open.
    """

    def __init__(
        self, server: "uvicorn.Server", listener: socket.socket, helpers: ExitStack, address: str
    ) -> None:
        self._server, self._listener, self._helpers = server, listener, helpers
        self.address = address

    def run(self) -> None:
        """Answer requests until Ctrl-C or :meth:`stop`."""
        self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        """Let :meth:`run` end, from another thread."""
        self._server.should_exit = True

    def close(self) -> None:
        """Free the port and end the processes of the previews and surveys."""
        self._listener.close()
        self._helpers.close()


def prepare(folder: Path, port: int) -> Served:
    """Return a server that listens, but does not run yet.

    Raises:
        InputError: If the folder does not exist.
        SettingsError: If ``faceswap[review]`` is not installed.
        OutputError: If the port cannot be used.
    """
    workspace = Workspace(folder)
    try:
        import uvicorn

        from faceswap.review import app
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{error.name} is not installed: pip install 'faceswap[review]'"
        ) from error
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise OutputError(f"port {port} cannot be used: {error.strerror}") from error
    token, number = secrets.token_urlsafe(24), listener.getsockname()[1]
    helpers = ExitStack()
    config = uvicorn.Config(
        app.build(workspace, token, number, helpers), log_level="warning", lifespan="off",
        ws="none", limit_concurrency=MAX_CONNECTIONS, server_header=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    address = f"http://{HOST}:{number}/?token={token}"
    return Served(uvicorn.Server(config), listener, helpers, address)
