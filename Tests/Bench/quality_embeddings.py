"""What quantization costs MiniLM, real weights that have never been quantized: squared error, and sentences' embeddings."""

import json
import pathlib
import tempfile

import torch
import transformers

from quality_decoders import NIBBLE, SITE, run, size
import measure
import real_models

ROWS = {
    "bitsandbytes NF4": [],
    "search": ["--scale-search", "mse"],
    "search, positive": ["--scale-search", "positive"],
    "target-bits 4.6, search": ["--scale-search", "mse", "--target-bits", "4.6"],
    "target-bits 6, search": ["--scale-search", "mse", "--target-bits", "6"],
}


def sentences(count: int) -> list[str]:
    """Lines of prose from what packages say of themselves."""
    lines = []
    for path in sorted(SITE.glob("*.dist-info/METADATA")):
        lines += [line.strip() for line in path.read_text(errors="replace").splitlines() if 60 < len(line.strip()) < 200]
    return lines[:: max(1, len(lines) // count)][:count]


def embeddings(folder: pathlib.Path, texts: list[str]) -> torch.Tensor:
    """Means over the tokens, of length 1, as the model's own pooling has it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    found = []
    with torch.no_grad():
        for text in texts:
            hidden = model(**tokenizer(text, return_tensors="pt", truncation=True)).last_hidden_state[0]
            found.append(torch.nn.functional.normalize(hidden.mean(0), dim=0))
    return torch.stack(found)


def squared_error(folder: pathlib.Path, source: pathlib.Path) -> float:
    """Of all weights in 4 bits together."""
    report = json.loads(measure.run(NIBBLE, "inspect", folder, "--stats", "--against", source, "--json", "--quiet", output=True).output)
    errors = [(row["stats"]["error"]["rmse"], row["shape"]) for row in report["tensors"] if "error" in (row.get("stats") or {})]
    return sum(rmse**2 * shape[0] * shape[1] for rmse, shape in errors)


def main() -> None:
    source, texts = real_models.minilm(), sentences(400)
    original = embeddings(source, texts)
    print(f"all-MiniLM-L6-v2: {len(texts)} sentences; bytes, 1 - cosine to F32's (mean), share, squared error's share")
    base = None
    with tempfile.TemporaryDirectory(prefix="nibble-quality-") as folder:
        out, plain = pathlib.Path(folder) / "out", pathlib.Path(folder) / "plain"
        for name, options in ROWS.items():
            run(NIBBLE, "quantize", source, "-o", out, "--force", "--quiet", *options)
            run(NIBBLE, "convert", out, "-o", plain, "--force", "--quiet", "--dtype", "float32")
            distance = (1 - (embeddings(plain, texts) * original).sum(1)).mean().item()
            error = squared_error(out, source)
            base = base or (distance, error)
            print(f"  {name:40} {size(out):11,} {distance:9.6f} {distance / base[0]:6.3f} {error / base[1]:6.3f}", flush=True)
