"""What quantization costs decoders: the divergence from the original, at which size.

Each row is a way of making NF4 or a GGUF file of about its size, and for it the bytes of the quantized file, the KL
divergence of the next token's distribution from the original's (nats for each token of text that is not the calibration
text), the same as a share of bitsandbytes' own, the loss, and for the fixture how many questions are answered exactly. Two models: the trained fixture, calibrated on its own kind of
questions, and SmolLM2-135M-Instruct, whose published Q4_1 weights are the original here, calibrated on the texts that
Python packages come with. The rows of other text are calibrated on what has nothing to do with what is measured.
"""

import collections.abc
import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile

import peft
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "Interop"))
import real_models

NIBBLE = os.environ.get("NIBBLE") or str(ROOT / ".build/release/nibble")
FIXTURE = ROOT / "fixtures" / "sql-llama"
QUESTIONS = 150
SITE = pathlib.Path(torch.__file__).resolve().parents[1]


def run(*command, **environment) -> None:
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL, env=os.environ | environment)


@dataclasses.dataclass
class Subject:
    """A model, calibration texts, others' texts, and sequences of tokens to measure on."""

    name: str
    folder: pathlib.Path
    texts: list[pathlib.Path]
    foreign: list[pathlib.Path]
    sequences: list[torch.Tensor]
    tokens: int
    # Of a model's folder, how many questions it answers exactly; None where there are none to ask.
    exact: collections.abc.Callable[[pathlib.Path], int] | None = None


def fixture(place: pathlib.Path) -> Subject:
    specification = importlib.util.spec_from_file_location("sql_llama", FIXTURE / "make.py")
    make = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(make)
    _, tokenizer = make.load(FIXTURE)
    pairs = make.heldout()
    text = place / "questions.txt"
    text.write_text("\n".join(f"{pair.prompt} {pair.sql}" for pair in pairs[150:]))
    sequences = [torch.tensor([make.encode(tokenizer, pair)[0]]) for pair in pairs[:150]]

    def exact(folder: pathlib.Path) -> int:
        model, tokenizer = make.load(folder)
        asked = pairs[:QUESTIONS]
        return sum(text == pair.sql for text, pair in zip(make.answers(model, tokenizer, asked), asked))

    return Subject("sql-llama", FIXTURE, [text], [prose(place)], sequences, 32768, exact)


def prose(place: pathlib.Path) -> pathlib.Path:
    """What packages say of themselves."""
    text = place / "descriptions.txt"
    parts = [path.read_text(errors="replace") for path in sorted(SITE.glob("*.dist-info/METADATA"))]
    text.write_text("\n".join(parts)[:2_000_000])
    return text


def smollm2(place: pathlib.Path) -> Subject:
    folder = place / "smollm2"
    run(NIBBLE, "convert", real_models.smollm2(), "-o", folder, "--dtype", "float32", "--quiet")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    licences = sorted(SITE.glob("*.dist-info/**/LICENSE*")) + sorted(SITE.glob("*.dist-info/**/AUTHORS*"))
    other = "\n".join(path.read_text(errors="replace") for path in licences if path.is_file())
    docs = (SITE / "torch" / "_torch_docs.py").read_text() + other
    ids = tokenizer(docs[:120_000], return_tensors="pt").input_ids[0]
    sequences = [ids[start : start + 512][None] for start in range(0, min(ids.numel() - 512, 20_480), 512)]
    source = place / "source.txt"
    source.write_text("\n".join(path.read_text(errors="replace") for path in sorted((SITE / "numpy").glob("**/*.py"))[:80]))
    return Subject("SmolLM2-135M-Instruct", folder, [prose(place)], [source], sequences, 32768)


def calibrate(subject: Subject, texts: list[pathlib.Path], out: pathlib.Path) -> None:
    run(sys.executable, "-m", "nibble.calibrate", subject.folder, *texts, "-o", out, "--tokens", subject.tokens,
        "--hessian", "--imatrix", f"{out}.imatrix", "--quiet", PYTHONPATH=str(ROOT / "Sources" / "Python"))


class Judge:
    """Holds the original's distributions."""

    def __init__(self, subject: Subject):
        self.sequences = subject.sequences
        self.original = [each.half() for each in self.distributions(subject.folder)]

    def distributions(self, folder: pathlib.Path, adapter: pathlib.Path | None = None):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if adapter is not None:
            model = peft.PeftModel.from_pretrained(model, adapter)
        for ids in self.sequences:
            with torch.no_grad():
                yield torch.log_softmax(model(ids).logits[0].float(), -1)

    def measure(self, folder: pathlib.Path, adapter: pathlib.Path | None = None) -> tuple[float, float]:
        """Divergence and loss for each token."""
        divergence = loss = count = 0
        for ids, theirs, mine in zip(self.sequences, self.original, self.distributions(folder, adapter)):
            theirs = theirs.float()
            divergence += (theirs.exp() * (theirs - mine)).sum().item()
            loss -= mine[:-1].gather(1, ids[0, 1:, None]).sum().item()
            count += ids.numel()
        return divergence / count, loss / count


def rows(statistics: pathlib.Path, foreign: pathlib.Path) -> dict[str, list]:
    search, feedback = ["--scale-search", "mse"], ["--feedback", statistics]
    weighted = search + ["--importance", statistics]
    k, matrix = ["--scheme", "q4_k_m"], ["--imatrix", f"{statistics}.imatrix"]
    return {
        "bitsandbytes NF4": [],
        "search": search,
        "search, positive": ["--scale-search", "positive"],
        "search with importance": weighted,
        "search with importance of other text": search + ["--importance", foreign],
        "feedback": feedback,
        "feedback with search": feedback + search,
        "feedback with search, other text": ["--feedback", foreign] + search,
        "target-bits 4.6, search with importance": weighted + ["--target-bits", "4.6"],
        "target-bits 4.6, feedback with search": feedback + search + ["--target-bits", "4.6"],
        "LoftQ, rank 64": ["--loftq-rank", "64"],
        "LoftQ, rank 64, feedback with search": feedback + search + ["--loftq-rank", "64"],
        "Q4_K_M": k,
        "Q4_K_M with imatrix": k + matrix,
        "Q4_K_M with feedback": k + feedback,
    }


def size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.glob("*.safetensors"))


def report(subject: Subject, place: pathlib.Path) -> None:
    statistics, foreign = place / "own", place / "foreign"
    calibrate(subject, subject.texts, statistics)
    calibrate(subject, subject.foreign, foreign)
    judge = Judge(subject)
    tokens = sum(ids.numel() for ids in subject.sequences)
    print(f"{subject.name}: {tokens} tokens; bytes, KL, share of bitsandbytes', loss", flush=True)
    base = None
    for name, options in rows(statistics, foreign).items():
        out, plain = place / ("out.gguf" if "Q4" in name else "out"), place / "plain"
        run(NIBBLE, "quantize", subject.folder, "-o", out, "--force", "--quiet", *options)
        run(NIBBLE, "convert", out, "-o", plain, "--force", "--quiet", "--dtype", "float32")
        adapter = place / "out-loftq" if "--loftq-rank" in options else None
        divergence, loss = judge.measure(plain, adapter)
        base = base or divergence
        count = size(out) + (size(adapter) if adapter else 0)
        answers = f" {subject.exact(plain)} of {QUESTIONS}" if subject.exact and adapter is None else ""
        print(f"  {name:40} {count:11,} {divergence:9.5f} {divergence / base:6.3f} {loss:8.4f}{answers}", flush=True)


def main() -> None:
    for make in (fixture, smollm2):
        with tempfile.TemporaryDirectory(prefix="nibble-quality-") as folder:
            place = pathlib.Path(folder)
            report(make(place), place)
