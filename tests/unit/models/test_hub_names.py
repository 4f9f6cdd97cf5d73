"""Names on the hub: one question, pinned answers, and no waiting where there is no network.

The hub itself is a seam: its client's two calls are replaced, everything behind them is real.
"""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from stateset_agents.core.errors import ModelError
from stateset_agents.models import load_model, preflight, save_model_folder
from stateset_agents.models.memory import GIB, Memory
from stateset_agents.models.sources import lies_here

# Releases of huggingface_hub differ in which of two twin HTTP clients they use.
client = import_module(type(huggingface_hub.get_session()).__module__.partition(".")[0])

GOOD_FILES = ["config.json", "model.safetensors", "tokenizer.json", "README.md"]


def listing(files: list[str], parameters: int = 1000) -> SimpleNamespace:
    return SimpleNamespace(
        sha="c0ffee",
        siblings=[SimpleNamespace(rfilename=name) for name in files],
        safetensors=SimpleNamespace(total=parameters, parameters={"BF16": parameters}),
        config={},
    )


@pytest.fixture
def hub(monkeypatch):
    """A hub whose answers a test writes down: an exception is raised, anything else returned."""
    answers = SimpleNamespace(info=None, snapshot=None, asked=[])

    def answer(value, **asked):
        answers.asked.append(asked)
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, name, **kw: answer(answers.info, **kw))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **kw: answer(answers.snapshot, **kw))
    return answers


def response_error(kind: type[Exception]) -> Exception:
    return kind("refused", response=client.Response(404, request=client.Request("GET", "https://hub.example")))


def test_a_hub_model_is_pinned_to_its_revision_and_only_root_files_are_fetched(hub, tmp_path):
    hub.info, hub.snapshot = listing(GOOD_FILES), str(save_model_folder(load_model("tiny"), tmp_path))
    loaded = load_model("someone/tiny-chat", device="cpu")
    assert loaded.identity == {"name": "someone/tiny-chat", "hub": "someone/tiny-chat", "revision": "c0ffee"}
    assert hub.asked[-1]["revision"] == "c0ffee"
    assert hub.asked[-1]["ignore_patterns"] == ["*/*"]
    assert not {"*.bin", "*.py", "*"} & set(hub.asked[-1]["allow_patterns"])


@pytest.mark.parametrize("error", [client.ConnectError("no route"), ConnectionError("no route")])
def test_without_a_network_and_without_a_copy_one_line_says_so(hub, error):
    hub.info, hub.snapshot = error, LocalEntryNotFoundError("not cached")
    with pytest.raises(ModelError, match=r"the hub cannot be reached \(no route\), and no copy is cached; allowed: "):
        load_model("someone/tiny-chat")


def test_without_a_network_the_cached_copy_is_taken_and_said(hub, tmp_path, caplog):
    folder = save_model_folder(load_model("tiny"), tmp_path / "c0ffee")
    hub.info, hub.snapshot = client.ConnectTimeout("slow"), str(folder)
    loaded = load_model("someone/tiny-chat", device="cpu")
    assert loaded.identity["revision"] == "c0ffee"
    assert "taking the cached copy" in caplog.text
    assert hub.asked[-1] == {"local_files_only": True}


def test_offline_mode_is_answered_at_once():
    with pytest.raises(ModelError, match="no copy is cached"):
        load_model("someone/tiny-chat")


def test_an_unknown_or_gated_model_says_what_to_do(hub):
    hub.info = response_error(RepositoryNotFoundError)
    with pytest.raises(ModelError, match=r"no public model of that name on the hub .*set HF_TOKEN"):
        load_model("someone/tiny-chat")
    hub.info = listing(GOOD_FILES)
    hub.snapshot = response_error(GatedRepoError)
    with pytest.raises(ModelError, match="is gated: accept its terms"):
        load_model("someone/tiny-chat")


def test_a_download_that_breaks_off_is_one_error(hub):
    hub.info, hub.snapshot = listing(GOOD_FILES), client.ReadError("connection reset")
    with pytest.raises(ModelError, match=r"could not be downloaded: connection reset"):
        load_model("someone/tiny-chat")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["config.json", "pytorch_model.bin"], r"weights as pickles only \(pytorch_model.bin\)"),
        (["config.json"], "no safetensors weights"),
        (["README.md", "original/config.json"], r"no config\.json"),
    ],
)
def test_what_must_not_be_loaded_is_refused_before_the_download(hub, files, message):
    hub.info = listing(files)
    with pytest.raises(ModelError, match=message):
        load_model("someone/tiny-chat")
    assert len(hub.asked) == 1


def test_what_does_not_fit_is_refused_before_the_download(hub):
    hub.info = listing(GOOD_FILES, parameters=70_000_000_000)
    with pytest.raises(ModelError, match=r"someone/large \(70 B parameters\) does not fit here"):
        preflight("someone/large", training=False, memory=Memory("RAM", 12 * GIB, 16 * GIB))
    assert len(hub.asked) == 1


def test_the_embedded_model_comes_from_the_hub_where_the_wheel_is_missing(hub, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("GRPO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("stateset_agents.models.embedded.WHEEL", "no-such-distribution")
    hub.info, hub.snapshot = listing(GOOD_FILES), str(save_model_folder(load_model("tiny"), Path(tmp_path) / "m"))
    loaded = load_model("smollm2-135m-instruct", device="cpu")
    assert loaded.name == "smollm2-135m-instruct"
    assert loaded.identity["hub"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "taking HuggingFaceTB/SmolLM2-135M-Instruct from the hub instead" in caplog.text


def test_what_lies_here_is_told_without_asking_the_hub(hub, tmp_path):
    hub.snapshot = LocalEntryNotFoundError("not here")
    here = {"tiny": True, "stub://echo": True, "no/such-model": False, str(tmp_path): True, f"{tmp_path}/x": False}
    assert {name: lies_here(name) for name in here} == here
    hub.snapshot = str(tmp_path)
    assert lies_here("some/model")
    assert all(asked.get("local_files_only") for asked in hub.asked)
