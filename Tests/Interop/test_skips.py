"""A skip is a fault unless it is listed, in one process and in two."""

import os
import pathlib
import subprocess
import sys

import pytest

import skips

HERE = pathlib.Path(skips.__file__).parent
LISTED = next(iter(skips.EXPECTED))
IN_A_TEST = "import pytest\ndef test_it(): pytest.skip({!r})\n"
OF_A_FILE = "import pytest\npytest.skip({!r}, allow_module_level=True)\n"


def run(folder: pathlib.Path, text: str, *options: str) -> subprocess.CompletedProcess:
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_skipping.py").write_text(text)
    (folder / "test_passing.py").write_text("def test_it(): pass\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "skips", *options, "."],
        cwd=folder, env=environment, capture_output=True, text=True,
    )


@pytest.mark.parametrize("options", [(), ("-n", "2", "--dist", "loadfile")], ids=["one process", "two"])
@pytest.mark.parametrize("text", [IN_A_TEST, OF_A_FILE], ids=["in a test", "of a file"])
def test_skips_fail_unless_listed(text, options, tmp_path):
    found = run(tmp_path, text.format("it rains"), *options)
    assert found.returncode == 1 and "it rains" in found.stdout, found.stdout + found.stderr
    listed = run(tmp_path, text.format(LISTED), *options)
    assert listed.returncode == 0, listed.stdout + listed.stderr


def test_a_failure_stays_one(tmp_path):
    result = run(tmp_path, "def test_it(): assert False\n")
    assert result.returncode == 1 and "not expected" not in result.stdout
