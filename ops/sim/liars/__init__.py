"""Byzantine behaviours: wrappers around the production replica that lie with its own keys."""

from __future__ import annotations

from types import MappingProxyType

from ops.sim.liars.answers import (
    BadState,
    Counterfeiter,
    Dripper,
    Flooder,
    Foreigner,
    Mirror,
)
from ops.sim.liars.base import Desk, Frame, Liar
from ops.sim.liars.edge import Babbler, Boaster, Echoer, Forger
from ops.sim.liars.logs import (
    Backdater,
    Bodyless,
    Censor,
    Forker,
    Future,
    Ghost,
    Hydra,
    Inventor,
    Logless,
    Omitter,
    Reverser,
    Shuffler,
    Stuffer,
    Swamper,
    Withholder,
)
from ops.sim.liars.rounds import (
    Equivocator,
    HighClaimer,
    LowClaimer,
    Mute,
    NoLeader,
    Silent,
    Staller,
    Turncoat,
    Twin,
    TwoVoter,
)
from ops.sim.liars.traders import Cycler, Expirer, Introducer, Planter, Resigner
from ops.sim.liars.votes import (
    Abstainer,
    Amnesiac,
    Hider,
    LateVoter,
    LeaverOut,
    StaleLeader,
    WrongState,
)

_ALL: tuple[type[Liar], ...] = (
    Mute,
    Silent,
    NoLeader,
    Logless,
    Reverser,
    Shuffler,
    Omitter,
    Stuffer,
    Censor,
    Future,
    Backdater,
    Forker,
    Hydra,
    Withholder,
    Bodyless,
    Ghost,
    Swamper,
    Inventor,
    HighClaimer,
    LowClaimer,
    TwoVoter,
    Turncoat,
    Staller,
    Equivocator,
    Twin,
    Boaster,
    Echoer,
    Forger,
    Babbler,
    Cycler,
    Planter,
    Expirer,
    Introducer,
    Resigner,
    LateVoter,
    Abstainer,
    Hider,
    Amnesiac,
    LeaverOut,
    WrongState,
    StaleLeader,
    Counterfeiter,
    Foreigner,
    Mirror,
    Dripper,
    Flooder,
    BadState,
)

LIARS = MappingProxyType({kind.name: kind for kind in _ALL})
"""Every behaviour by its name on the command line."""

__all__ = ["LIARS", "Desk", "Frame", "Liar"]
