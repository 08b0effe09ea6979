"""Where things are in the data folder of one machine. Pure paths."""

import pathlib
from dataclasses import dataclass

# sockaddr_un holds 108 octets with the final NUL.
MOST_SOCKET_PATH = 107


@dataclass(frozen=True, slots=True)
class Layout:
    """`root` is POSTROOM_DATA_DIR."""

    root: pathlib.Path

    def directory(self, consumer: str) -> pathlib.Path:
        return self.root / "directory" / consumer

    def socket(self, service: str) -> pathlib.Path:
        return self.root / "run" / f"{service}.sock"

    def http(self, service: str) -> pathlib.Path:
        return self.root / "run" / f"{service}.http.sock"

    @property
    def spool(self) -> pathlib.Path:
        return self.root / "spool.sqlite3"

    @property
    def keys(self) -> pathlib.Path:
        return self.root / "keys"

    @property
    def secrets(self) -> pathlib.Path:
        return self.root / "secrets"

    @property
    def tls(self) -> pathlib.Path:
        return self.root / "tls"

    @property
    def sink(self) -> pathlib.Path:
        return self.root / "sink"

    @property
    def may_come_back(self) -> bool:
        """Whether a service that does not answer is being started again."""
        return self.running.exists()

    def token(self, role: str) -> pathlib.Path:
        """Who may use the page."""
        return self.root / "web" / f"{role}.token"

    @property
    def running(self) -> pathlib.Path:
        """What `postroom send` needs to know of a running instance."""
        return self.root / "run" / "up.json"
