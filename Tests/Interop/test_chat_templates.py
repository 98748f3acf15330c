"""Chat templates, however many and whatever they are called: transformers reads the same ones before and after, and
GGUF has what llama.cpp's converter writes."""

import json
import pathlib
import shutil

import pytest
import transformers

import gguf_oracle
import nibble as package
from tool import ROOT, Nibble

FIXTURE = ROOT / "fixtures" / "sql-llama"
DIALECT = ROOT / "fixtures" / "sql-llama-dialect"

MAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
TEMPLATES = {"default": MAIN, "tool_use": MAIN + "tools\n", "rag": "é {{ documents }}"}
# Any order of a set is as good for gguf-py.
NAMES = "tokenizer.chat_templates"


def model(folder: pathlib.Path, templates: dict | str | None, form: str = "files") -> pathlib.Path:
    """The fixture with these templates, written by transformers."""
    shutil.copytree(FIXTURE, folder)
    save(folder, templates, form)
    return folder


def save(folder: pathlib.Path, templates: dict | str | None, form: str = "files") -> None:
    settings = json.loads((FIXTURE / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if form == "old":
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": templates}))
        return
    tokenizer = transformers.AutoTokenizer.from_pretrained(FIXTURE)
    tokenizer.chat_template = templates
    saved, _ = tokenizer.save_chat_templates(str(folder), settings, None, save_jinja_files=form == "files")
    (folder / "tokenizer_config.json").write_text(json.dumps(saved))


def read(folder: pathlib.Path) -> dict | str | None:
    return transformers.AutoTokenizer.from_pretrained(folder).chat_template


def metadata(path: pathlib.Path) -> dict:
    """What a file says of templates."""
    found = {key: value for key, (_, value) in gguf_oracle.read(path)["metadata"].items() if "chat_template" in key}
    return found | {NAMES: sorted(found[NAMES])} if NAMES in found else found


CASES = [(None, "files"), (MAIN, "files"), (MAIN, "list"), (TEMPLATES, "files"), (TEMPLATES, "list"), (MAIN, "old"),
         ({"default": MAIN, "x-ray vision": "x"}, "files"), ({"default": MAIN, "x/y": "x"}, "list"),
         ({"rag": "only"}, "list"), ({"default": MAIN, "x": "first of two names", "é": "x"}, "list")]


@pytest.mark.parametrize(("templates", "form"), CASES)
def test_to_gguf(templates, form, nibble: Nibble, tmp_path):
    directory = model(tmp_path / "model", templates, form)
    nibble.run("convert", directory, "-o", tmp_path / "ours.gguf")
    theirs = gguf_oracle.convert(directory, tmp_path / "theirs.gguf", "bf16")
    assert metadata(tmp_path / "ours.gguf") == metadata(theirs)
    if not isinstance(templates, dict) or len(templates) < 3:
        assert (tmp_path / "ours.gguf").read_bytes() == theirs.read_bytes()


def test_settings_come_first(nibble: Nibble, tmp_path):
    """As for the converter, which leaves the files out then. What they have more goes along here."""
    directory = model(tmp_path / "model", {"default": "of the files", "rag": "r"})
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": "of the settings"}))
    run = nibble.run("convert", directory, "-o", tmp_path / "ours.gguf")
    assert "differ in 'default'" in run.stderr
    theirs = metadata(gguf_oracle.convert(directory, tmp_path / "theirs.gguf", "bf16"))
    assert theirs == {"tokenizer.chat_template": "of the settings"}
    assert metadata(tmp_path / "ours.gguf") == theirs | {"tokenizer.chat_template.rag": "r", NAMES: ["rag"]}


def test_object_of_templates(nibble: Nibble, tmp_path):
    """transformers takes what it would make of the list; llama.cpp's converter warns of it and writes none."""
    directory = model(tmp_path / "model", {"default": "d", "rag": "r"}, "list")
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings["chat_template"] = {"default": "d", "rag": "r"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    assert read(directory) == {"default": "d", "rag": "r"}
    nibble.run("convert", directory, "-o", tmp_path / "ours.gguf")
    expected = {"tokenizer.chat_template": "d", "tokenizer.chat_template.rag": "r", NAMES: ["rag"]}
    assert metadata(tmp_path / "ours.gguf") == expected


def test_only_further_ones(nibble: Nibble, tmp_path):
    """Without a main template the converter does not look into the folder; transformers does."""
    directory = model(tmp_path / "model", {"rag": "r"})
    assert read(directory) == {"rag": "r"}
    nibble.run("convert", directory, "-o", tmp_path / "ours.gguf")
    assert metadata(tmp_path / "ours.gguf") == {"tokenizer.chat_template.rag": "r", NAMES: ["rag"]}


def test_names_that_become_one(nibble: Nibble, tmp_path):
    """Where the converter keeps the last."""
    directory = model(tmp_path / "model", {"a-b": "1", "a.b": "2", "a_b": "3"}, "list")
    run = nibble.run("convert", directory, "-o", tmp_path / "ours.gguf")
    assert "'a-b' is 'a_b_2', 'a.b' is 'a_b_3'" in run.stderr
    found = metadata(tmp_path / "ours.gguf")
    assert {key.rpartition(".")[2]: value for key, value in found.items() if key != NAMES} == {
        "a_b": "3", "a_b_2": "1", "a_b_3": "2"}
    assert found[NAMES] == ["a_b", "a_b_2", "a_b_3"]


@pytest.mark.parametrize("templates", [None, MAIN, TEMPLATES, {"rag": "only"}])
def test_back(templates, nibble: Nibble, tmp_path):
    directory = model(tmp_path / "model", templates)
    nibble.run("convert", directory, "-o", tmp_path / "model.gguf")
    nibble.run("convert", tmp_path / "model.gguf", "-o", tmp_path / "back")
    assert read(tmp_path / "back") == templates
    nibble.verify(tmp_path / "back")
    # From GGUF to GGUF nothing of it is touched.
    nibble.quantize(tmp_path / "model.gguf", tmp_path / "small.gguf", "--scheme", "q8_0")
    assert metadata(tmp_path / "small.gguf") == metadata(tmp_path / "model.gguf")


@pytest.mark.parametrize("name", ["../../x", "", "file", "a\\b", "plain name"])
def test_names_of_gguf(name, nibble: Nibble, tmp_path):
    """No path is made of what is no file's name, and transformers has all templates. It would take the one in `file.jinja`
    for the main one."""
    nibble.run("convert", model(tmp_path / "model", MAIN), "-o", tmp_path / "model.gguf")
    nibble.run("edit", tmp_path / "model.gguf", "--set", f"tokenizer.chat_template.{name}=odd", "--set",
               "tokenizer.chat_template.rag=plain")
    before = sorted(tmp_path.iterdir())
    nibble.run("convert", tmp_path / "model.gguf", "-o", tmp_path / "back")
    assert read(tmp_path / "back") == {"default": MAIN, name: "odd", "rag": "plain"}
    assert len(list((tmp_path / "back").rglob("*.jinja"))) == (3 if name == "plain name" else 0)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "back"])


@pytest.mark.parametrize("form", ["files", "list"])
def test_directories(form, nibble: Nibble, tmp_path):
    directory = model(tmp_path / "model", TEMPLATES, form)
    for verb in ("quantize", "convert", "split", "join"):
        nibble.run(verb, directory, "-o", tmp_path / verb)
        assert read(tmp_path / verb) == TEMPLATES, verb
        nibble.verify(tmp_path / verb)
        assert "model.norm.weight" in package.open(tmp_path / verb, verify=True)


@pytest.mark.parametrize("base_form", ["files", "list"])
@pytest.mark.parametrize("form", ["files", "list"])
def test_of_an_adapter(base_form, form, nibble: Nibble, tmp_path):
    """They replace the base's, all of them, in whatever form either has them."""
    base = model(tmp_path / "base", TEMPLATES, base_form)
    adapter = shutil.copytree(DIALECT, tmp_path / "adapter")
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (adapter / name).unlink(missing_ok=True)
    nibble.run("merge", base, adapter, "-o", tmp_path / "kept")
    assert read(tmp_path / "kept") == TEMPLATES

    own = {"default": "mine", "sql": "mine too"}
    save(adapter, own, form)
    if form == "files":
        (adapter / "tokenizer_config.json").unlink()
    nibble.run("merge", base, adapter, "-o", tmp_path / "merged")
    assert read(tmp_path / "merged") == own
    nibble.verify(tmp_path / "merged")

    expected = {"tokenizer.chat_template": "mine", "tokenizer.chat_template.sql": "mine too", NAMES: ["sql"]}
    nibble.run("merge", base, adapter, "-o", tmp_path / "merged.gguf")
    assert metadata(tmp_path / "merged.gguf") == expected
    nibble.run("convert", base, "-o", tmp_path / "base.gguf")
    nibble.run("merge", tmp_path / "base.gguf", adapter, "-o", tmp_path / "onto.gguf")
    assert metadata(tmp_path / "onto.gguf") == expected
