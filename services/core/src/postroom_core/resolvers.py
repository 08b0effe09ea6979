"""A DNS resolver for whoever asks the world: delivery, checks, `postroom up`, the operator. Makes it; what an answer means is theirs to say."""

from collections.abc import Sequence

import dns.asyncresolver
import dns.nameserver
import dns.resolver

from postroom_core.errors import Permanent


def resolver(servers: Sequence[str], seconds: float) -> dns.asyncresolver.Resolver:
    """Asks `servers` (ADDRESS:PORT), or the system's resolvers, for at most `seconds` a question. Raises Permanent when the system has none.

    No search list: a pod's must never turn mx.example into a cluster name.
    """
    try:
        made = dns.asyncresolver.Resolver(configure=not servers)
    except dns.resolver.NoResolverConfiguration as error:
        raise Permanent("the system has no DNS resolver configured; set POSTROOM_RESOLVERS") from error
    if servers:
        parts = [server.rpartition(":") for server in servers]
        made.nameservers = [dns.nameserver.Do53Nameserver(address.strip("[]"), int(port)) for address, _, port in parts]
    made.lifetime = seconds
    made.search = []
    return made
