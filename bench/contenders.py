"""The contenders of the benchmark, each started from nothing in a folder of its own and ended by its process id. Loopback only."""

import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

from contract.postgres import Server

POSTROOM = str(pathlib.Path(sys.executable).with_name("postroom"))
RSA_BITS = "2048"
LOGIN = ("bench", "bench-password")
HOSTNAME = "mta.d.example"
RESOURCES = """
apiVersion: mail.postroom.dev/v1alpha1
kind: SendingPool
metadata: {name: main}
spec:
  destinationLimits: [{name: all, match: ["*"], maxConnections: 20, messagesPerConnection: 1000}]
---
apiVersion: mail.postroom.dev/v1alpha1
kind: MailDomain
metadata: {name: d}
spec:
  domainName: d.example
  poolRef: {name: main}
  dkim: {importedKeys: [{selector: bench, secretRef: {name: key}}]}
  clients: [{name: bench, cidrs: [127.0.0.1/32], allowedSenders: ["*@d.example"]}]
  credentials: [{name: bench, secretRef: {name: login}, allowedSenders: ["*@d.example"]}]
---
kind: Secret
metadata: {name: login}
stringData: {username: bench, password: bench-password}
---
kind: Secret
metadata: {name: key}
stringData:
  tls.key: |
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for_port(port: int, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing listens on {port}")


def make_key(path: pathlib.Path) -> None:
    """One RSA key for everybody."""
    subprocess.run(["openssl", "genrsa", "-traditional", "-out", path, RSA_BITS], check=True, capture_output=True)


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of processes, of their living children, and of children that ended."""
    total = 0.0
    for pid in pids:
        try:
            process = psutil.Process(pid)
            for one in [process, *process.children(recursive=True)]:
                times = one.cpu_times()
                total += times.user + times.system
                if one.pid == pid:
                    total += times.children_user + times.children_system
        except psutil.NoSuchProcess:
            continue
    return total


class Postroom:
    """`postroom up`, with its SQLite spool, or with a PostgreSQL server of its own (the tests' one: its defaults, fsync on)."""

    def __init__(
        self, folder: pathlib.Path, key: pathlib.Path, sink_port: int, resolver: str, *, postgres: bool = False, extra: tuple[str, ...] = ()
    ) -> None:
        """`extra` are further settings, NAME=VALUE, which the name tells."""
        folder.mkdir()
        self.name = " ".join(["Postroom (PostgreSQL)" if postgres else "Postroom (SQLite)", *extra])
        self.database = Server(shared_buffers="256MB") if postgres else None
        spool = self.database.database() if self.database is not None else ""
        self.signed = True
        self.port, self.login_port, self.login = free_port(), free_port(), LOGIN
        ports = {"submission": self.login_port, "tls": free_port(), "relay": self.port, "http": free_port()}
        file = folder / "mail.yaml"
        file.write_text(RESOURCES + "".join(f"    {line}\n" for line in key.read_text().splitlines()))
        environment = {
            **os.environ,
            "POSTROOM_DATA_DIR": str(folder / "data"),
            "POSTROOM_RESOLVERS": resolver,
            "POSTROOM_REMOTE_SMTP_PORT": str(sink_port),
            "POSTROOM_ALLOWED_MX_NETWORKS": "127.0.0.0/8",
            "POSTROOM_HOSTNAME": HOSTNAME,
            "POSTROOM_LOG_LEVEL": "warning",
            **({"POSTROOM_SPOOL_URL": spool} if spool else {}),
            **dict(setting.split("=", 1) for setting in extra),
        }
        self._environment = environment
        command = [POSTROOM, "up", str(file), "--json", "--ports", ",".join(f"{name}={port}" for name, port in ports.items())]
        self._up = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=(folder / "log").open("w"), text=True)
        assert self._up.stdout is not None
        if "ready" not in self._up.stdout.readline():
            raise RuntimeError((folder / "log").read_text())

    def hold(self, domain: str) -> None:
        """From now on mail to this domain is accepted and stays in the queue."""
        subprocess.run([POSTROOM, "queue", "suspend", domain], env=self._environment, check=True, capture_output=True)

    def queued(self) -> int:
        """Recipients in the queue."""
        shown = subprocess.run([POSTROOM, "stats", "--json"], env=self._environment, check=True, capture_output=True)
        return int(sum(json.loads(shown.stdout)["recipients"].values()))

    def groups(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {"postgres": [self.database.pid]} if self.database is not None else {}
        for child in psutil.Process(self._up.pid).children(recursive=True):
            name = next((part for part in child.cmdline() if part.startswith("postroom_")), "")
            if name:
                found[name.removeprefix("postroom_")] = [child.pid]
        return found

    def stop(self) -> None:
        self._up.send_signal(signal.SIGTERM)
        self._up.wait(60)
        if self.database is not None:
            self.database.remove()


class Postfix:
    """Postfix, with OpenDKIM as its milter unless `signed` is False."""

    def __init__(self, folder: pathlib.Path, key: pathlib.Path, sink_port: int, *, signed: bool = True) -> None:
        self.name = "Postfix + OpenDKIM" if signed else "Postfix alone"
        folder.mkdir()
        self.port, milter = free_port(), free_port()
        self.signed = signed
        self.login_port, self.login = self.port, (f"{LOGIN[0]}@{HOSTNAME}", LOGIN[1])
        self._folder = folder
        self._opendkim: subprocess.Popen[bytes] | None = None
        if signed:
            self._opendkim = self._start_opendkim(key, milter)
        self._configure(sink_port, milter if signed else None)
        subprocess.run(["postfix", "-c", folder / "etc", "start"], check=True, capture_output=True)
        wait_for_port(self.port)
        self._master = int((folder / "queue" / "pid" / "master.pid").read_text())

    def _start_opendkim(self, key: pathlib.Path, port: int) -> subprocess.Popen[bytes]:
        own = self._folder / "dkim.key"
        shutil.copy(key, own)
        own.chmod(0o600)
        config = self._folder / "opendkim.conf"
        lines = (
            *("Mode s", "Domain d.example", "Selector bench", f"KeyFile {own}", f"Socket inet:{port}@127.0.0.1", "Canonicalization relaxed/relaxed"),
            *("InternalHosts 127.0.0.1", "RequireSafeKeys no", "Syslog no", "Background no", f"PidFile {self._folder}/opendkim.pid"),
        )
        config.write_text("\n".join(lines) + "\n")
        process = subprocess.Popen(["opendkim", "-f", "-x", config, "-u", "root"], stderr=subprocess.DEVNULL)
        wait_for_port(port)
        return process

    def _configure(self, sink_port: int, milter: int | None) -> None:
        etc, queue, data = (self._folder / name for name in ("etc", "queue", "data"))
        for path in (etc, queue, data):
            path.mkdir()
        os.chown(data, pwd.getpwnam("postfix").pw_uid, -1)
        for path in (self._folder, *self._folder.parents):
            if str(path).startswith("/tmp/"):
                path.chmod(0o755)
        master = pathlib.Path("/etc/postfix/master.cf").read_text().splitlines()
        services = [line for line in master if line and not line.startswith(("#", " ", "\t", "smtp      inet"))]
        services = [line.replace("  y  ", "  n  ") for line in services]
        (etc / "master.cf").write_text(f"127.0.0.1:{self.port} inet n - n - - smtpd\n" + "\n".join(services) + "\n")
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": queue,
            "data_directory": data,
            "maillog_file": self._folder / "mail.log",
            "maillog_file_prefixes": "/tmp",
            "myhostname": HOSTNAME,
            "mydestination": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "relayhost": f"[127.0.0.1]:{sink_port}",
            "smtpd_recipient_restrictions": "permit_mynetworks, reject",
            "alias_maps": "",
            "smtp_destination_concurrency_limit": "20",
            # A benchmark of throughput, not of the limit on one client.
            "smtpd_client_connection_count_limit": "0",
            **self._tls_and_auth(etc),
        }
        if milter is not None:
            settings |= {"smtpd_milters": f"inet:127.0.0.1:{milter}", "milter_default_action": "tempfail"}
        (etc / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))

    def _tls_and_auth(self, etc: pathlib.Path) -> dict[str, object]:
        """STARTTLS and AUTH PLAIN from a password file of Cyrus SASL (Debian's sasl2-bin and libsasl2-modules)."""
        certificate, private = etc / "cert.pem", etc / "key.pem"
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={HOSTNAME}"]
        subprocess.run([*make, "-keyout", private, "-out", certificate], check=True, capture_output=True)
        passwords, sasl = etc / "sasldb2", etc / "sasl"
        sasl.mkdir()
        (sasl / "smtpd.conf").write_text(f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN\nsasldb_path: {passwords}\n")
        user, password = LOGIN
        subprocess.run(["saslpasswd2", "-c", "-p", "-f", passwords, "-u", HOSTNAME, user], input=password.encode(), check=True, capture_output=True)
        passwords.chmod(0o644)
        return {
            "smtpd_tls_cert_file": certificate,
            "smtpd_tls_key_file": private,
            "smtpd_tls_security_level": "may",
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_local_domain": HOSTNAME,
            "cyrus_sasl_config_path": sasl,
        }

    def hold(self, domain: str) -> None:
        """From now on mail to this domain is accepted and stays in the hold queue, which nothing looks at."""
        etc = self._folder / "etc"
        (etc / "held").write_text(f"{domain} HOLD\n")
        setting = f"smtpd_recipient_restrictions=check_recipient_access texthash:{etc}/held, permit_mynetworks, permit_sasl_authenticated, reject"
        for command in (["postconf", "-c", str(etc), "-e", setting], ["postfix", "-c", str(etc), "reload"]):
            subprocess.run(command, check=True, capture_output=True)

    def queued(self) -> int:
        """Messages in the queue."""
        listed = subprocess.run(["postqueue", "-c", self._folder / "etc", "-j"], check=True, capture_output=True)
        return len(listed.stdout.splitlines())

    def groups(self) -> dict[str, list[int]]:
        found = {"postfix": [self._master]}
        if self._opendkim is not None:
            found["opendkim"] = [self._opendkim.pid]
        return found

    def stop(self) -> None:
        subprocess.run(["postfix", "-c", self._folder / "etc", "stop"], capture_output=True, timeout=60)
        if self._opendkim is not None:
            self._opendkim.terminate()
            self._opendkim.wait(30)


Contender = Postroom | Postfix
Start = Callable[[], Contender]
