"""What every test here shares: the tool, quiet libraries, the switch for long tests, and no skip that is not expected."""

import os
import pathlib
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
import transformers

import oracle
import shared_memory
from tool import ROOT, Nibble

pytest_plugins = ["skips"]


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run the tests marked long")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


def pytest_configure(config):
    # As many at work at once, whether by threads or by processes of pytest-xdist.
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    torch.set_num_threads(max(1, min(2, os.cpu_count() or 1) // processes))
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        without_bf16_kernels()
    oracle.take_one_map()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def without_bf16_kernels() -> None:
    """bitsandbytes asks the processor itself, whatever kernels torch was told to take."""
    import bitsandbytes

    for module in (bitsandbytes.functional, bitsandbytes.nn.modules, bitsandbytes.backends.cpu.ops):
        module.has_avx512bf16 = lambda: False


@pytest.fixture(scope="session", autouse=True)
def nothing_left_in_shared_memory():
    yield
    shared_memory.sweep()


@pytest.fixture(scope="session")
def nibble() -> Nibble:
    return Nibble()


@pytest.fixture(scope="session")
def quantized(tmp_path_factory, nibble) -> pathlib.Path:
    """The small trained model in 4 bits, in several shards. Not to be changed."""
    out = tmp_path_factory.mktemp("quantized") / "nf4"
    nibble.quantize(ROOT / "fixtures" / "sql-llama", out, "--max-shard-size", "1MB")
    return out


@pytest.fixture
def copy(quantized, tmp_path) -> pathlib.Path:
    """One that may be damaged."""
    return pathlib.Path(shutil.copytree(quantized, tmp_path / "copy"))


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Tiny bases, each made when it is first asked for; while a module uses them, torch computes in one thread."""
    import adapters

    with adapters.one_thread():
        yield adapters.Bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """The tiny models that have a GGUF form. Not to be changed."""
    import gguf_families

    return gguf_families.Models(tmp_path_factory.mktemp("families"))
