"""Files, functions and parameter lists stay small: 400 lines, 60 lines, 6 parameters."""

import ast
import pathlib

from architecture.tree import ROOT, files, python_files

FILE_LINES = 400
FUNCTION_LINES = 60
PARAMETERS = 6


def functions(path: pathlib.Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return len([argument for argument in named if argument.arg not in ("self", "cls")])


def test_no_file_is_longer_than_its_budget() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in python_files()}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_no_function_is_longer_than_its_budget() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{function.name}": lines
        for path in python_files()
        for function in functions(path)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES
    }
    assert long == {}


def test_no_function_has_more_parameters_than_its_budget() -> None:
    wide = {
        f"{path.relative_to(ROOT)}:{function.name}": count
        for path in python_files()
        for function in functions(path)
        if (count := parameters(function)) > PARAMETERS
    }
    assert wide == {}


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in python_files()
        if path.name != "__init__.py" and "src" in path.parts and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_no_module_is_named_for_anything() -> None:
    vague = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "manager.py", "misc.py"}
    assert [str(path.relative_to(ROOT)) for path in files() if path.name in vague] == []
