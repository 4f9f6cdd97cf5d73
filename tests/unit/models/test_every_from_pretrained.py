"""Nothing in the package reads a pickle, and every loader call says whether code may run."""

import ast
from pathlib import Path

import stateset_agents

SOURCES = sorted(Path(stateset_agents.__file__).parent.rglob("*.py"))
READ_PICKLES = {"torch", "np", "numpy", "pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


def calls(name: str) -> list[tuple[Path, ast.Call]]:
    found = []
    for path in SOURCES:
        found += [
            (path, node)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name
        ]
    return found


def test_every_from_pretrained_says_whether_code_may_run_and_takes_safetensors_only():
    found = calls("from_pretrained")
    assert len(found) >= 4
    for path, call in found:
        keywords = {keyword.arg for keyword in call.keywords}
        assert {"trust_remote_code", "use_safetensors"} <= keywords, f"{path.name}, line {call.lineno}"


def test_no_module_loads_a_pickle():
    for path, call in calls("load") + calls("loads"):
        owner = ast.unparse(call.func.value)
        assert owner not in READ_PICKLES, f"{path.name}, line {call.lineno}: {owner}.{call.func.attr}"
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & READ_PICKLES - {"torch", "numpy", "np"}, path.name
