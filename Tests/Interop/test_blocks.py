"""The kernels of ggml's block types against ggml itself: the same bits out of blocks, the same blocks out of values."""

import ctypes
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from xllamacpp import xllamacpp

KERNELS = pathlib.Path(__file__).resolve().parents[2] / "Sources" / "Kernels"
SOURCES = ("blocks_decode", "blocks_decode_k", "blocks_encode", "blocks_weighted", "targets")
GGML = ctypes.CDLL(xllamacpp.__file__)

# Values and bytes of a block.
SIZES = {
    "q4_0": (32, 18), "q4_1": (32, 20), "q5_0": (32, 22), "q5_1": (32, 24), "q8_0": (32, 34), "q2_K": (256, 84),
    "q3_K": (256, 110), "q4_K": (256, 144), "q5_K": (256, 176), "q6_K": (256, 210), "iq4_nl": (32, 18),
    "iq4_xs": (256, 136), "mxfp4": (32, 17),
}
ENCODED = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "mxfp4")
SEARCHED = ("q4_0", "q4_1", "q5_0", "q5_1")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    # The compiler that builds the tool: others may contract products and sums.
    compiler = shutil.which("clang++") or pytest.skip("no clang++")
    out = tmp_path_factory.mktemp("kernels") / "blocks.so"
    files = [KERNELS / f"{name}.cpp" for name in SOURCES]
    flags = ["-std=c++17", "-O2", "-fPIC", "-shared", "-DHWY_SHARED_DEFINE", f"-I{KERNELS / 'include'}"]
    subprocess.run([compiler, *flags, *files, "-o", out, "-lhwy"], check=True)
    return ctypes.CDLL(str(out))


@pytest.fixture
def targets(kernels):
    yield range(kernels.nibble_kernels_target_count())
    kernels.nibble_kernels_select_target(-1)


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def by_ggml(name, blocks):
    values, size = SIZES[name]
    found = np.zeros(len(blocks) // size * values, np.float32)
    getattr(GGML, f"dequantize_row_{name}")(pointer(blocks), pointer(found), ctypes.c_int64(found.size))
    return found


def by_kernel(kernels, name, blocks):
    values, size = SIZES[name]
    found = np.zeros(len(blocks) // size * values, np.float32)
    count = ctypes.c_size_t(len(blocks) // size)
    getattr(kernels, f"nibble_decode_{name.lower()}")(pointer(blocks), count, pointer(found))
    return found


def encoded(kernels, name, rows, importance=None):
    values, size = SIZES[name]
    blocks = np.zeros(rows.size // values * size, np.uint8)
    weights = None if importance is None else pointer(importance)
    getattr(kernels, f"nibble_encode_{name}")(
        pointer(rows), ctypes.c_size_t(rows.shape[0]), ctypes.c_size_t(rows.shape[1]), weights, pointer(blocks))
    return blocks


def difficult(lowest):
    """Pieces of 256 values: from 2^`lowest` on, zeros of both signs, ties, and next to powers of two."""
    random = np.random.default_rng(3)
    pieces = []
    for _ in range(300):
        normal = random.standard_normal(256)
        whole = random.integers(-8, 9, 256)
        # One value that holds each block up.
        scale = 2.0 ** random.uniform(lowest + 4, 14)
        normal[::32] = 1.0
        whole[::32] = 8
        pieces += [normal * 0.02, normal * scale, np.abs(normal) * scale, whole * 2.0 ** np.floor(np.log2(scale))]
        pieces.append(np.where(random.random(256) < 0.5, 0.0, -0.0))
        pieces.append((2 - random.integers(1, 60, 256) * 2.0**-23) * 2.0 ** random.integers(max(lowest, -100), 14))
    return np.concatenate(pieces).astype(np.float32).reshape(-1, 256)


@pytest.mark.parametrize("name", SIZES)
def test_decodes_the_same_bits(kernels, targets, name):
    blocks = np.random.default_rng(1).integers(0, 256, 2048 * SIZES[name][1], dtype=np.uint8)
    expected = by_ggml(name, blocks)
    for target in targets:
        kernels.nibble_kernels_select_target(target)
        found = by_kernel(kernels, name, blocks)
        # Random scales are NaN at times, and one NaN is as good as another.
        same = (found.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(found) & np.isnan(expected))
        assert same.all(), f"target {target}: first at {np.argmin(same)}"


@pytest.mark.parametrize("name", ENCODED)
def test_encodes_the_same_blocks(kernels, targets, name):
    values, size = SIZES[name]
    # Below 2^-125 ggml converts a negative exponent of MXFP4 to an unsigned byte.
    rows = difficult(-124 if name == "mxfp4" else -149)
    expected = np.zeros(rows.size // values * size, np.uint8)
    getattr(GGML, f"quantize_row_{name}_ref")(pointer(rows), pointer(expected), ctypes.c_int64(rows.size))
    for target in targets:
        kernels.nibble_kernels_select_target(target)
        same = (encoded(kernels, name, rows) == expected).reshape(-1, size).all(axis=1)
        block = int(np.argmin(same))
        assert same.all(), f"target {target}: {(~same).sum()} blocks, first of {rows.reshape(-1, values)[block]}"


@pytest.mark.parametrize("name", SEARCHED)
def test_search_leaves_less_error(kernels, name):
    random = np.random.default_rng(2)
    importance = (random.standard_normal(2048) ** 2 * np.exp(random.standard_normal(2048))).astype(np.float32)
    for rows in (random.standard_normal((16, 2048)), random.standard_t(3, (16, 2048))):
        rows = (rows * 0.02).astype(np.float32)
        reference = np.zeros(rows.size // SIZES[name][0] * SIZES[name][1], np.uint8)
        getattr(GGML, f"quantize_{name}")(
            pointer(rows), pointer(reference), ctypes.c_int64(16), ctypes.c_int64(2048), pointer(importance))
        found, expected = (
            float((importance * (by_ggml(name, blocks).reshape(rows.shape) - rows.astype(float)) ** 2).sum())
            for blocks in (encoded(kernels, name, rows, importance), reference))
        assert 0 < found <= 0.99 * expected, (found, expected)


def test_finds_what_is_not_finite(kernels, targets):
    kernels.nibble_first_non_finite.restype = ctypes.c_size_t
    values = np.ones(1000, np.float32)
    for target in targets:
        kernels.nibble_kernels_select_target(target)
        assert kernels.nibble_first_non_finite(pointer(values), ctypes.c_size_t(1000)) == 1000
        for index in (0, 17, 511, 999):
            for bad in (np.nan, np.inf, -np.inf):
                damaged = values.copy()
                damaged[index] = bad
                assert kernels.nibble_first_non_finite(pointer(damaged), ctypes.c_size_t(1000)) == index
