"""llama.cpp's converter, and what it writes, read back with gguf-py.

The converter is the one in the source distribution of llama-cpp-python, unpacked into the cache on first use. A folder
that holds `convert_hf_to_gguf.py`, named by $NIBBLE_LLAMA_CPP, is taken instead.
"""

import functools
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import environment

VERSION = "0.3.36"

# pip asks the build backend for metadata before it hands over a source distribution. This one answers without a
# compiler; the distribution's own looks for CMake first.
BACKEND = f'''
import pathlib

def prepare_metadata_for_build_wheel(folder, settings=None):
    name = "llama_cpp_python-{VERSION}.dist-info"
    path = pathlib.Path(folder, name)
    path.mkdir()
    (path / "METADATA").write_text("Metadata-Version: 2.1\\nName: llama_cpp_python\\nVersion: {VERSION}\\n")
    return name

def build_wheel(*arguments):
    raise NotImplementedError
'''

# One process for all models, because importing takes seconds: it reads a JSON list of arguments a line, answers each
# with a line, and leaves what the converter says to stderr. The converter knows a BPE tokenizer by the hash of what it
# makes of a sample text; tiny ones are unknown to it.
WORKER = '''
import json
import os
import runpy
import sys
import traceback

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
folder = sys.argv[1]
sys.path.insert(0, folder)
sys.path.insert(1, folder + "/gguf-py")
import conversion.base

conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: PRE
for line in sys.stdin:
    PRE, script, *arguments = json.loads(line)
    sys.argv = [script, *arguments]
    answer = None
    try:
        runpy.run_path(folder + "/" + script, run_name="__main__")
    except (Exception, SystemExit):
        answer = traceback.format_exc()
    print(json.dumps(answer), file=answers, flush=True)
'''


PREFIX = f"llama_cpp_python-{VERSION}/vendor/llama.cpp/"


def download(scratch: pathlib.Path) -> pathlib.Path:
    """The source distribution, through pip."""
    package = scratch / "scikit_build_core"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "build.py").write_text(BACKEND)
    command = [
        sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
        "--dest", str(scratch), f"llama-cpp-python=={VERSION}",
    ]
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | {"PYTHONPATH": str(scratch)})
    return next(scratch.glob("*.tar.gz"))


def unpack(folder: pathlib.Path) -> None:
    """Keeps the converters of it."""
    wanted = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion/", "gguf-py/gguf/")
    with tempfile.TemporaryDirectory() as temporary, tarfile.open(download(pathlib.Path(temporary))) as archive:
        for member in archive.getmembers():
            if member.isfile() and member.name.removeprefix(PREFIX).startswith(wanted):
                member.name = member.name.removeprefix(PREFIX)
                archive.extract(member, folder, filter="data")


def source(folder: pathlib.Path) -> pathlib.Path:
    """All of llama.cpp, unpacked into `folder`."""
    with tarfile.open(download(folder)) as archive:
        archive.extractall(folder, [member for member in archive if member.name.startswith(PREFIX)], filter="data")
    return folder / PREFIX


@functools.cache
def converter() -> pathlib.Path:
    """The folder of `convert_hf_to_gguf.py`."""
    if named := os.environ.get("NIBBLE_LLAMA_CPP"):
        return pathlib.Path(named)
    folder = environment.cache() / f"llama-cpp-python-{VERSION}-converters"
    complete = folder / "complete"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with environment.locked(folder.with_suffix(".lock")):
        if not complete.exists():
            unpack(folder)
            complete.touch()
    return folder


@functools.cache
def worker() -> subprocess.Popen:
    """The process that converts; it ends when its input does, which is when this process does."""
    with tempfile.TemporaryFile() as log:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, str(converter())], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def convert(model: pathlib.Path, out: pathlib.Path, outtype: str = "auto", pre: str = "default") -> pathlib.Path:
    """Has the converter make `out` of a Hugging Face model's directory. `pre` is the pre-tokenizer that a BPE tokenizer
    is taken for."""
    run(pre, "convert_hf_to_gguf.py", model, "--outfile", out, "--outtype", outtype)
    return out


def convert_adapter(adapter: pathlib.Path, base: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """Has the other converter make `out`, in float32, of the directory of a PEFT adapter."""
    run("default", "convert_lora_to_gguf.py", adapter, "--base", base, "--outfile", out)
    return out


def run(*arguments) -> None:
    process = worker()
    process.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, f"the converter ended with {process.wait()}"
    failure = json.loads(answer)
    assert failure is None, failure


def read(path: pathlib.Path) -> dict:
    """`metadata`: key to (type, value), in order; an array's type is (element type,). `tensors`: name to (type, shape
    row-major, SHA-256 of the data as it is stored), in order."""
    if str(converter() / "gguf-py") not in sys.path:
        sys.path.insert(0, str(converter() / "gguf-py"))
    import gguf

    reader = gguf.GGUFReader(path)
    metadata = {}
    for key, field in reader.fields.items():
        if key.startswith("GGUF."):
            continue
        names = [kind.name for kind in field.types]
        kind = tuple(names[1:]) if names[0] == "ARRAY" else names[0]
        metadata[key] = (kind, field.contents())
    tensors = {
        tensor.name: (
            tensor.tensor_type.name, [int(size) for size in reversed(tensor.shape)],
            hashlib.sha256(tensor.data.tobytes()).hexdigest(),
        )
        for tensor in reader.tensors
    }
    return {"metadata": metadata, "tensors": tensors}
