"""The committed protobuf code is what the .proto files generate."""

import importlib.util
import pathlib

from architecture.tree import ROOT


def test_generated_protobuf_equals_what_is_committed(tmp_path: pathlib.Path) -> None:
    specification = importlib.util.spec_from_file_location("gen_protos", ROOT / "scripts" / "gen_protos.py")
    assert specification is not None and specification.loader is not None
    generator = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(generator)
    generator.generate(tmp_path)
    fresh = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    committed_below = ROOT / "protos" / "gen"
    paths = [path for path in committed_below.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    committed = {str(path.relative_to(committed_below)): path.read_bytes() for path in paths if "egg-info" not in str(path)}
    assert sorted(fresh) == sorted(committed)
    assert [name for name in fresh if fresh[name] != committed[name]] == []
