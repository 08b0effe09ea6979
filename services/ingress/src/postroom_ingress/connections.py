"""How many authenticated connections each credential and each domain has open with this process, and whether one more may. Pure counting.

It holds for one process: connections come and go too fast to be counted in the spool, and each replica's own limit is what protects it.
"""

from collections import Counter

from postroom_ingress.policy import Identity


class Connections:
    """One for the process."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def enter(self, identity: Identity) -> bool:
        """Counts one more, or says that there is no room for it; `leave` gives it back."""
        limits = {_domain(identity): identity.domain.limits.max_connections, _credential(identity): identity.limits.max_connections}
        if any(most is not None and self._open[key] >= most for key, most in limits.items()):
            return False
        self._open.update(limits.keys())
        return True

    def leave(self, identity: Identity) -> None:
        for key in (_domain(identity), _credential(identity)):
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]

    def __len__(self) -> int:
        return len(self._open)


def _domain(identity: Identity) -> str:
    return identity.domain.name


def _credential(identity: Identity) -> str:
    return f"{identity.domain.name}/{identity.name}"
