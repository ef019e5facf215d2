"""Serve the app on this machine until Ctrl-C."""

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
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
    server, listener, address = prepare(Path(folder), port)
    with listener, suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
        on_ready(address)
        server.run(sockets=[listener])


def prepare(folder: Path, port: int) -> "tuple[uvicorn.Server, socket.socket, str]":
    """Return a server that does not run yet, its socket, which listens, and its address.

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
    config = uvicorn.Config(
        app.build(workspace, token, number), log_level="warning", lifespan="off", ws="none",
        limit_concurrency=MAX_CONNECTIONS, server_header=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    return uvicorn.Server(config), listener, f"http://{HOST}:{number}/?token={token}"
