"""Runs the release binary, named by $NIBBLE."""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]

# sysexits, as the tool documents them.
DIFFERENT, USAGE, REJECTED, MISSING, UNSUPPORTED, EXISTS = 1, 2, 65, 66, 69, 73


class Nibble:
    def __init__(self):
        self.path = os.environ.get("NIBBLE") or str(ROOT / ".build/release/nibble")

    def run(self, *arguments, expect: int = 0) -> subprocess.CompletedProcess:
        """Fails, with everything the tool printed, when it answers another exit code."""
        command = [self.path, *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert result.returncode == expect, (
            f"exit code {result.returncode}, expected {expect}: {' '.join(command)}\n{result.stdout}{result.stderr}"
        )
        return result

    def json(self, *arguments, expect: int = 0) -> dict:
        """The one object that --json prints."""
        return json.loads(self.run(*arguments, "--json", "--quiet", expect=expect).stdout)

    def quantize(self, source, out, *options) -> dict:
        return self.json("quantize", source, "-o", out, *options)

    def verify(self, path, *options) -> dict:
        report = self.json("verify", path, *options)
        assert report["ok"] and not report["problems"], report
        return report
