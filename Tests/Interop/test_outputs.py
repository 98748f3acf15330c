"""Every byte that the tool writes is what it was: see outputs.py."""

import json

import outputs


def test_files_are_what_they_were(nibble):
    recorded = json.loads(outputs.RECORD.read_text())
    found = outputs.run(nibble.path, only_recorded=True)
    changed = [
        f"{command}: {path}" for command, files in recorded.items()
        for path in files.keys() | found[command]["files"].keys()
        if files.get(path) != found[command]["files"].get(path)
    ]
    assert not changed, changed
