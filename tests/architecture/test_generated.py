"""What is generated and committed is what its source generates now."""

import importlib.util
import pathlib
from typing import Any

from architecture.tree import ROOT


def script(name: str) -> Any:
    """A script of scripts/ as a module."""
    specification = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_page_about_replies_is_what_the_table_says() -> None:
    assert (ROOT / "docs" / "replies.md").read_text() == script("gen_replies").render(), "run scripts/gen_replies.py"


def test_the_page_about_errors_is_what_the_catalogue_says() -> None:
    assert (ROOT / "docs" / "errors.md").read_text() == script("gen_errors").render(), "run scripts/gen_errors.py"


def test_generated_protobuf_equals_what_is_committed(tmp_path: pathlib.Path) -> None:
    script("gen_protos").generate(tmp_path)
    fresh = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    committed_below = ROOT / "protos" / "gen"
    paths = [path for path in committed_below.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    committed = {str(path.relative_to(committed_below)): path.read_bytes() for path in paths if "egg-info" not in str(path)}
    assert sorted(fresh) == sorted(committed)
    assert [name for name in fresh if fresh[name] != committed[name]] == []
