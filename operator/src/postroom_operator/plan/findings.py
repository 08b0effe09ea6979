"""What a plan finds wrong: the field and a sentence, which becomes a line of a file on one machine and a condition in a cluster. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from postroom_core.documents import Verifier
from postroom_operator.resources import Secret

SecretKey = tuple[str, str]  # namespace, name
Lookup = Callable[[SecretKey], Secret | None]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """`path` is below spec."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"spec.{'.'.join(str(step) for step in self.path)}: {self.text}"


@dataclass(frozen=True, slots=True)
class Passwords:
    """Verifiers by (user name, password), and those that stay valid for a while after a rotation, by user name."""

    verifiers: Mapping[tuple[str, str], Verifier] = field(default_factory=dict, repr=False)
    previous: Mapping[str, tuple[Verifier, ...]] = field(default_factory=dict, repr=False)
