"""How many authenticated connections each credential and each domain has open, and whether one more may. Pure.

It holds for the processes of one pod: connections come and go too fast to be counted in the spool, and each replica's own limit is what protects it.
"""

from postroom_ingress.headcount import Headcount
from postroom_ingress.policy import Identity


class Connections:
    """One for the process; counts together with the others that share `headcount`."""

    def __init__(self, headcount: Headcount) -> None:
        self._headcount = headcount

    def enter(self, identity: Identity) -> bool:
        """Counts one more, or says that there is no room for it; `leave` gives it back."""
        limits = {_domain(identity): identity.domain.limits.max_connections, _credential(identity): identity.limits.max_connections}
        if any(most is not None and self._headcount.held(key) >= most for key, most in limits.items()):
            return False
        for key in limits:
            self._headcount.hold(key)
        return True

    def leave(self, identity: Identity) -> None:
        for key in (_domain(identity), _credential(identity)):
            self._headcount.release(key)


def _domain(identity: Identity) -> str:
    return f"domain:{identity.domain.name}"


def _credential(identity: Identity) -> str:
    return f"credential:{identity.domain.name}/{identity.name}"
