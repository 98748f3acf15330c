"""`verify=True`: beside the weights, every file is the one that was written with them."""

import pytest

import nibble
from test_python_open import rewrite_manifest

EDITED = ["config.json", "tokenizer.json", "generation_config.json", "special_tokens_map.json"]


def edit(path) -> None:
    path.write_bytes(path.read_bytes().replace(b"{", b"{ ", 1))


def test_what_was_written_is_accepted(quantized):
    for verify in (None, True, False):
        nibble.open(quantized, verify=verify).close()
        nibble.load(quantized, device="cpu", verify=verify)


@pytest.mark.parametrize("name", EDITED)
def test_an_edited_file_is_named(name, copy):
    edit(copy / name)
    for read in (nibble.open, lambda path, verify: nibble.load(path, device="cpu", verify=verify)):
        with pytest.raises(nibble.DigestError) as caught:
            read(copy, verify=True)
        assert (caught.value.file, caught.value.tensor, caught.value.others) == (str(copy / name), None, ())
        assert f"{copy / name}: digest" in str(caught.value) and "edited or damaged" in str(caught.value)
    nibble.load(copy, device="cpu", verify=False)


def test_all_that_were_edited_are_named(copy):
    for name in EDITED[:2]:
        edit(copy / name)
    with pytest.raises(nibble.DigestError, match="config.json: digest.*, and so are tokenizer.json$"):
        nibble.open(copy, verify=True)


def test_only_config_and_index_are_looked_at_by_default(copy, recwarn):
    edit(copy / "tokenizer.json")
    nibble.open(copy).close()
    assert not recwarn
    edit(copy / "config.json")
    with pytest.warns(UserWarning, match="config.json: not what was written"):
        nibble.open(copy).close()


def test_files_that_are_gone_or_new(copy):
    (copy / "notes.txt").write_text("of the user")
    with pytest.raises(nibble.CheckpointError, match="notes.txt: not in nibble-manifest.json"):
        nibble.open(copy, verify=True)
    (copy / "notes.txt").unlink()
    (copy / "tokenizer.json").unlink()
    with pytest.raises(nibble.CheckpointError, match="tokenizer.json: cannot be read"):
        nibble.open(copy, verify=True)
    nibble.open(copy).close()


def test_what_version_control_and_trainers_keep_there(copy):
    (copy / ".gitattributes").write_text("*.safetensors filter=lfs")
    (copy / "checkpoint-100").mkdir()
    nibble.open(copy, verify=True).close()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../outside", "a\\b"])
def test_a_manifest_that_names_other_places_is_refused(name, copy):
    (copy.parent / "outside").write_text("")
    rewrite_manifest(copy, lambda manifest: manifest["files"].update({name: {"size": 0, "xxh128": "0" * 32}}))
    with pytest.raises(nibble.CheckpointError, match="not the name of a file beside it"):
        nibble.open(copy, verify=True)
    nibble.open(copy).close()
