"""Whether an address is free to listen on."""

from __future__ import annotations

import errno
import socket

from p2p.errors import HostError, PortInUse


def check_port(listen: tuple[str, int]) -> None:
    """Refuse an address that somebody listens on. Errors: PortInUse, HostError."""
    host, port = listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(f"p2p port {port} on {host} is already in use") from None
            raise HostError(f"cannot listen on {host} port {port}: {error.strerror}") from None
