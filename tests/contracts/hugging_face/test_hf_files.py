"""The Hugging Face face, its files: models, tokenizers and datasets, and what is missing or cannot be read."""

from __future__ import annotations

import json
import logging
import sys
import types

import pytest
import torch

import neuro
from neuro import folder
from neuro.errors import FormatError, MissingError, UsageError
from neuro.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

from neuro.hf import NeuroConfig, NeuroForCausalLM, NeuroTokenizer  # noqa: E402
from neuro.hf.datasets import read_documents  # noqa: E402

TEXT = "The city began when the river rose.\nA fox ran over the hill, and people said it was <unk> good.\n\n" * 3
SPAN = 16


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_folder_of_ours_loads_as_a_transformers_model(saved, brain):
    model = NeuroForCausalLM.from_pretrained(saved, backend="cpu")
    ours = neuro.load(saved, "cpu")
    assert not model.training and model.brain.tokenizer.fingerprint == brain.tokenizer.fingerprint
    assert model.config.brain_config() == ours.config and model.config.about == {"steps": 7}
    for name, tensor in ours.state_dict().items():
        assert torch.equal(model.state_dict()[f"brain.{name}"], tensor), name
    assert (model.config.vocab_size, model.config.hidden_size, model.config.num_hidden_layers) == (300, 32, 2)


def test_what_save_pretrained_wrote_loads_both_ways(model, tmp_path):
    model.generation_config.temperature = 0.7
    model.generation_config.do_sample = True
    model.save_pretrained(tmp_path / "theirs")
    ours, theirs = neuro.load(tmp_path / "theirs", "cpu"), NeuroForCausalLM.from_pretrained(tmp_path / "theirs")
    assert theirs.generation_config.temperature == 0.7
    assert theirs.generation_config.suppress_tokens == model.generation_config.suppress_tokens
    for name, tensor in model.brain.state_dict().items():
        half = tensor.half().float()
        assert torch.equal(ours.state_dict()[name], half) and torch.equal(theirs.state_dict()[f"brain.{name}"], half)
    record = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert record["schema"] == folder.SCHEMA and record["architectures"] == ["NeuroForCausalLM"]
    theirs.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert again == record


def test_the_auto_classes_know_it(saved):
    assert isinstance(transformers.AutoConfig.from_pretrained(saved), NeuroConfig)
    assert isinstance(transformers.AutoModelForCausalLM.from_pretrained(saved), NeuroForCausalLM)
    assert isinstance(transformers.AutoTokenizer.from_pretrained(saved), NeuroTokenizer)
    torch.manual_seed(0)
    fresh = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(saved))
    torch.manual_seed(0)
    untouched = neuro.brain.Brain(fresh.config.brain_config())
    for name, tensor in untouched.state_dict().items():  # transformers must not initialise it a second time
        assert torch.equal(fresh.brain.state_dict()[name], tensor), name


def test_a_trainers_checkpoint_loads_by_its_tensors_names(model, saved):
    from safetensors.torch import load_file

    other = NeuroForCausalLM(model.config)
    result = other.load_state_dict(load_file(saved / "model.safetensors"), strict=False)
    assert not result.missing_keys and not result.unexpected_keys
    assert torch.equal(other.brain.embedding, model.brain.embedding.half().float())
    assert other.brain.regions["readout"].weight is other.brain.embedding


def test_options_of_loading(saved):
    model = NeuroForCausalLM.from_pretrained(saved, dtype="bfloat16", sets=["cortex.tau_mem_ms=3.0"])
    assert model.dtype == torch.bfloat16 and model.config.brain_config().cortex.tau_mem_ms == 3.0
    with pytest.raises(UsageError, match="device_map.*\nChoose where it runs with backend"):
        NeuroForCausalLM.from_pretrained(saved, device_map="auto")
    changed = NeuroConfig({**model.config.brain, "plasticity_span": 20})
    with pytest.raises(UsageError, match="not that of .*\nLeave config out"):
        NeuroForCausalLM.from_pretrained(saved, config=changed)
    with pytest.raises(MissingError, match="neither a shipped model nor a folder"):
        NeuroForCausalLM.from_pretrained("nothing-here")
    (saved / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(FormatError, match="truncated or foreign"):
        NeuroForCausalLM.from_pretrained(saved)


def test_a_hugging_face_id_is_downloaded(saved, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, allow_patterns, **options):
        asked.append((name, options))
        if name == "someone/else":
            raise ConnectionError("no route\nto the hub")
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    NeuroForCausalLM.from_pretrained("someone/brain", revision="v1", local_files_only=True)
    NeuroTokenizer.from_pretrained("someone/brain")
    assert asked == [("someone/brain", {"revision": "v1", "local_files_only": True}), ("someone/brain", {})]
    with pytest.raises(MissingError, match=r"'someone/else': .*\(ConnectionError: no route\).*\nCheck the name"):
        NeuroForCausalLM.from_pretrained("someone/else")


def test_saving_needs_a_tokenizer_and_does_not_upload(tiny_brain, model, tmp_path):
    bare = NeuroForCausalLM.from_brain(tiny_brain())
    with pytest.raises(UsageError, match="no tokenizer"):
        bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(UsageError, match="upload_folder"):
        model.save_pretrained(tmp_path / "up", push_to_hub=True)
    model.save_pretrained(tmp_path / "worker", is_main_process=False)
    assert not list(tmp_path.iterdir())


# -- tokenizer --------------------------------------------------------------------------------------------------------

TEXTS = [
    TEXT,
    "",
    " two  spaces\n\n\nlines \t",
    "an <unk> and <unk><unk>",
    "<bos>",
    "forged <bos><bos> here, <bos",
    "été 漢字 😀\u2028 \x00",
    "café\r\n",
]


def test_ids_and_texts_are_those_of_our_tokenizer(saved, tokenizer):
    theirs = NeuroTokenizer.from_pretrained(saved)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert theirs(text)["input_ids"] == theirs.encode(text) == ids, text
        assert theirs.convert_tokens_to_ids(theirs.tokenize(text)) == ids
        assert theirs.decode(ids) == text
    assert theirs(TEXTS)["input_ids"] == [tokenizer.encode(text) for text in TEXTS]
    assert (theirs.bos_token_id, theirs.unk_token_id, theirs.eos_token_id) == (0, 1, None)


def test_bos_and_padding_are_on_the_left(saved, tokenizer, model):
    theirs = NeuroTokenizer.from_pretrained(saved, add_bos_token=True)
    texts = ["The city", "A <bos> fox ran over the hill, and"]
    batch = theirs(texts, padding=True, return_tensors="pt")
    assert sorted(batch) == ["attention_mask", "input_ids"]
    for row, mask, text in zip(batch["input_ids"], batch["attention_mask"], texts, strict=True):
        assert row[mask.bool()].tolist() == [0, *tokenizer.encode(text)]
        assert mask.tolist() == sorted(mask.tolist())
    assert theirs("a fox", add_special_tokens=False)["input_ids"] == tokenizer.encode("a fox")
    out = model.generate(**batch, max_new_tokens=5)
    written = theirs.batch_decode(out, skip_special_tokens=True)
    assert [text.startswith(prompt) for text, prompt in zip(written, texts, strict=True)] == [True, True]


def test_saving_the_tokenizer_leaves_the_model_loadable(saved, tokenizer):
    theirs = transformers.AutoTokenizer.from_pretrained(saved, add_bos_token=True)
    theirs(["a", "bcd"], padding=True, truncation=True, max_length=2)
    theirs.save_pretrained(saved)
    assert neuro.load(saved, "cpu").tokenizer.fingerprint == tokenizer.fingerprint
    again = transformers.AutoTokenizer.from_pretrained(saved)
    assert again("a fox")["input_ids"] == tokenizer.encode("a fox")
    assert again.padding_side == "left"


def test_a_vocabulary_of_words_is_refused(tmp_path):
    words = Tokenizer.train(["a fox ran"], 5, kind="words")
    (tmp_path / "config.json").write_text("{}")
    words.save(tmp_path / "tokenizer.json")
    with pytest.raises(UsageError, match="vocabulary of words.*\nUse neuro.load"):
        NeuroTokenizer.from_pretrained(tmp_path)


# -- extras and datasets ----------------------------------------------------------------------------------------------


def test_without_the_extra_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingError, match=r"package transformers.*\npip install 'neuro-hybrid\[hf\]'"):
        neuro.hf.NeuroForCausalLM  # noqa: B018
    with pytest.raises(MissingError, match=r"package datasets.*\npip install 'neuro-hybrid\[hf\]'"):
        read_documents("owner/name")
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        neuro.hf.Nothing  # noqa: B018


class Rows:
    """Of a dataset as `datasets` gives it: typed columns by name."""

    def __init__(self, **columns):
        self.columns = columns
        kinds = {key: "string" if isinstance(column[0], str) else "int64" for key, column in columns.items()}
        self.features = {key: types.SimpleNamespace(dtype=kind) for key, kind in kinds.items()} | {"tags": ["string"]}

    def __getitem__(self, name):
        return self.columns[name]


@pytest.fixture
def library(monkeypatch):
    """A `datasets` whose hub holds what ``known`` says; it keeps the calls."""
    calls, known = [], {}

    def load_dataset(*args, split, **options):
        assert split == "train"
        calls.append((*args, *options.values()))
        found = known.get(args)
        if found is None:
            logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
            raise ConnectionError(f"Couldn't reach '{args[0]}' on the Hub\n(offline)")
        if isinstance(found, Exception):
            raise found
        return found

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return types.SimpleNamespace(calls=calls, known=known)


def test_datasets_by_name(library):
    library.known |= {
        ("plain",): Rows(text=["one", "", "two", None], title=["a", "b", "c", "d"]),
        ("owner/name",): Rows(body=["x"], n=[1]),
        ("owner/name", "sub"): Rows(text=["y"]),
        ("wikitext", "wikitext-2-raw-v1"): Rows(text=["z"]),
    }
    assert read_documents("plain") == ["one", "two"]
    assert read_documents("owner/name") == ["x"]
    assert read_documents("owner/name/sub") == ["y"]
    assert read_documents("wikitext/wikitext-2-raw-v1") == ["z"]
    assert library.calls[-2:] == [("wikitext/wikitext-2-raw-v1",), ("wikitext", "wikitext-2-raw-v1")]


def test_a_hub_that_is_not_there_is_one_error_and_no_chatter(library, caplog):
    level = logging.getLogger("huggingface_hub").level
    with pytest.raises(MissingError, match="'nowhere': cannot be had"):
        read_documents("nowhere")
    assert not caplog.records and logging.getLogger("huggingface_hub").level == level


def test_datasets_on_this_disk(library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for loader in ("json", "csv", "parquet"):
        library.known[loader,] = Rows(text=[loader])
    library.known["table",] = Rows(text=["folder"])
    for name in ("a.jsonl", "a.csv", "a.parquet", "b.json.gz", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "table").mkdir()
    assert read_documents("a.jsonl") == ["json"] and library.calls[-1] == ("json", "a.jsonl")
    assert [read_documents(name)[0] for name in ("a.csv", "a.parquet", "b.json.gz")] == ["csv", "parquet", "json"]
    assert read_documents("table") == ["folder"]
    with pytest.raises(UsageError, match=r"ending in '.txt', expected one of .json.*\nName a text file without 'hf:'"):
        read_documents("c.txt")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nowhere", MissingError, r"'nowhere': .*\(ConnectionError: .*\(offline\)\).\nCheck the name"),
        ("two/parts", MissingError, "Couldn't reach 'two/parts'"),
        ("a/b/c/d", UsageError, "expected NAME, OWNER/NAME or OWNER/NAME/SUBSET"),
        ("a//b", UsageError, "expected NAME"),
        ("needs", UsageError, "pick one among.*\nWrite hf:OWNER/NAME/SUBSET"),
        ("columns", UsageError, r"text columns \['a', 'b'\], expected 'text' or only one"),
        ("numbers", UsageError, r"text columns \[\], expected"),
        ("empty", UsageError, "holds no text"),
    ],
)
def test_datasets_that_cannot_be_read(library, name, error, message):
    library.known |= {
        ("needs",): ValueError("Config name is missing.\nPlease pick one among: ['x', 'y']"),
        ("columns",): Rows(a=["x"], b=["y"]),
        ("numbers",): Rows(n=[1]),
        ("empty",): Rows(text=["", None]),
    }
    with pytest.raises(error, match=message):
        read_documents(name)


def test_training_reads_a_dataset(library):
    from neuro.corpus import read_documents as read

    library.known["plain",] = Rows(text=["one"])
    assert read("hf:plain") == ["one"]
