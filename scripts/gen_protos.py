"""Generates protos/gen from protos/postroom/v1/*.proto. Run by `make protos`; a test runs it again and compares.

Proto paths equal Python paths, so the generated files need no editing.
"""

import pathlib
import sys

from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "protos"


def generate(target: pathlib.Path) -> None:
    """Writes *_pb2.py, *_pb2_grpc.py and their stubs below `target`. Raises SystemExit when protoc refuses."""
    files = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.glob("postroom/v1/*.proto"))
    arguments = [f"--{out}={target}" for out in ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")]
    if code := protoc.main(["protoc", f"-I{SOURCE}", *arguments, *files]):
        raise SystemExit(code)
    (target / "postroom" / "v1" / "__init__.py").write_text("")
    (target / "postroom" / "v1" / "py.typed").write_text("")


if __name__ == "__main__":
    generate(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE / "gen")
