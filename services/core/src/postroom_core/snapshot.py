"""A snapshot of the directory: all documents of a service at one version. A plain value; where it comes from is the directory's business."""

from collections.abc import Iterable
from typing import TypeVar

from postroom_core.documents import AnyDocument, Certificate, Domain, KeySet, Pool, SenderDomain

D = TypeVar("D", Domain, SenderDomain, Certificate, KeySet, Pool)


class Snapshot:
    """All documents at one version. Immutable; a change is a new snapshot."""

    def __init__(self, version: str, documents: Iterable[AnyDocument]) -> None:
        self.version = version
        self.documents = tuple(documents)

    def of(self, kind: type[D]) -> dict[str, D]:
        """The documents of one kind by name."""
        return {document.name: document for document in self.documents if isinstance(document, kind)}

    def __repr__(self) -> str:
        return f"Snapshot(version={self.version!r}, documents={len(self.documents)})"
