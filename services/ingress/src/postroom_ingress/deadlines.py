"""How long a client may take for what, and how little it may send. Pure values; each with its reason. Seconds, octets."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadlines:
    """`least_rate` is octets per second on average, once content has been coming for `grace` seconds."""

    idle: float = 300.0  # RFC 5321 section 4.5.3.2.7
    session: float = 4 * 3600.0  # long-lived pools of connections reconnect a few times a day; nothing else needs longer
    greeting: float = 0.0  # how long a stranger is watched for talking before the greeting; 0 looks only at what is there
    proxy: float = 5.0  # a load balancer sends its header with the first packet
    tls: float = 30.0  # two round trips and a slow phone
    auth: float = 60.0  # each answer to a challenge
    block: float = 180.0  # RFC 5321 section 4.5.3.2.5
    content: float = 3600.0  # 64 MiB at 150 kbit/s; nothing useful is slower
    grace: float = 60.0  # short enough that a dripping client holds its place for little more than a minute
    least_rate: int = 256  # a GSM modem is four times faster; whoever is slower only holds a connection
    closing: float = 2.0  # until what was written is with the kernel and TLS has said goodbye; whoever reads nothing loses the last reply
    error: float = 1.0  # every error over the first ten, and every wrong password, costs this
    line: float = 60.0  # from the first octet of a command to its end: people type faster, drippers do not


DEFAULT = Deadlines()
