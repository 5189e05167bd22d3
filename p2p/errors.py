"""What can go wrong on the way to a peer, and with the host itself."""


class LinkBroken(Exception):
    """The stream, or the way to the peer, is gone: dial again."""


class HostError(Exception):
    """The host cannot run: the text says why."""


class PortInUse(HostError):
    """Somebody else listens on our address."""


class HostCrashed(HostError):
    """The library below stopped by an exception of its own; a new host can be started."""
