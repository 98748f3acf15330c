"""The encoders of ggml's K-quants against ggml's own: the error of what is decoded must be no larger."""

import platform

import numpy as np
import pytest

import checkpoint
import kquants
from tool import ROOT

ROWS, COLUMNS = 24, 1024


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    return kquants.Encoders(tmp_path_factory.mktemp("kernels"))


def per_block(values, size):
    """One value for each `size` columns, repeated."""
    return np.repeat(values, size, axis=1)


def ordinary_values():
    """Where ggml's arithmetic neither overflows nor loses everything; names and values."""
    rng = np.random.default_rng(1)
    shape = (ROWS, COLUMNS)
    normal = rng.standard_normal(shape)
    exponents = rng.uniform(-8, 2, (ROWS, COLUMNS // 32))
    yield "Gaussian", normal * 0.02
    yield "Laplace", rng.laplace(size=shape) * 0.02
    yield "Student's t of 2", rng.standard_t(2, size=shape) * 0.02
    yield "Cauchy", rng.standard_cauchy(shape)
    yield "log-normal", np.exp(2 * normal) * np.sign(rng.standard_normal(shape))
    yield "uniform", rng.random(shape) - 0.3
    yield "positive", np.abs(normal) + 0.5
    yield "negative", -0.1 * np.abs(normal) - 0.5
    yield "sparse", np.where(rng.random(shape) < 0.95, 0, normal)
    yield "whole numbers", rng.integers(-8, 8, shape)
    yield "scales of 16", normal * per_block(np.exp(3 * rng.standard_normal((ROWS, COLUMNS // 16))), 16)
    yield "scales of 32", normal * per_block(10.0**exponents, 32)
    yield "constant rows", np.broadcast_to(rng.standard_normal((ROWS, 1)), shape)
    yield "constant sub-blocks", per_block(rng.standard_normal((ROWS, COLUMNS // 16)), 16)
    yield "bfloat16", (normal * 0.02).astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    yield "tiny", normal * 1e-6
    yield "tinier", normal * 1e-14
    yield "denormal", normal * 1e-41
    yield "denormal sub-blocks", np.where(per_block(rng.random((ROWS, COLUMNS // 16)), 16) < 0.5, 1e-41, 1) * normal
    yield "large", normal * 1e5
    yield "zero", np.zeros(shape)


def huge_values():
    normal = np.random.default_rng(2).standard_normal((ROWS, COLUMNS))
    for exponent in (7, 9, 15, 25, 38):
        yield f"1e{exponent}", np.clip(normal, -3, 3) * 10.0**exponent


def real_values():
    """The matrices of the trained model whose rows are whole blocks."""
    for name, tensor in checkpoint.tensors(ROOT / "fixtures" / "sql-llama").items():
        if tensor.ndim == 2 and tensor.shape[1] % 256 == 0:
            yield name, tensor.float().numpy()


def single(values):
    bits = values.dtype == np.uint32
    result = np.ascontiguousarray(values.view(np.float32) if bits else values.astype(np.float32))
    assert np.isfinite(result).all()
    return result


def importance_of(columns):
    """As an importance matrix has it: means of squares, over many orders of magnitude, some zero."""
    rng = np.random.default_rng(3)
    weights = np.exp(3 * rng.standard_normal(columns)) * (rng.random(columns) > 0.05)
    return weights.astype(np.float32)


def rmse(found, values, importance):
    weights = 1.0 if importance is None else importance.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = weights * (found.reshape(values.shape).astype(np.float64) - values) ** 2
    return np.sqrt(squares.mean())


def compare(encoders, name, title, values, is_weighted):
    """Checks the errors; returns whether the bytes are the same."""
    importance = importance_of(values.shape[1]) if is_weighted else None
    ours, theirs = encoders.ours(name, values, importance), encoders.theirs(name, values, importance)
    mine = rmse(encoders.decode(name, ours), values, importance)
    other = rmse(encoders.decode(name, theirs), values, importance)
    # Is false if either is NaN.
    assert mine <= other < np.inf, f"{title}: RMSE {mine:.9g}, ggml has {other:.9g}"
    return np.array_equal(ours, theirs)


weighted = pytest.mark.parametrize("is_weighted", [False, True], ids=["plain", "weighted"])
every_type = pytest.mark.parametrize("name", kquants.TYPES)


@weighted
@every_type
def test_distributions(name, is_weighted, encoders):
    differing = [
        title for title, values in ordinary_values()
        if not compare(encoders, name, title, single(values), is_weighted)
    ]
    # Of ggml's builds, those for x86-64 fuse no product with a sum either, and write the same bytes.
    if platform.machine() == "x86_64":
        assert not differing


@weighted
@every_type
def test_huge(name, is_weighted, encoders):
    """Beyond the range of a block's 16-bit factor. Ours is infinite then, for the caller to see; ggml's blocks
    decode as infinities and NaNs, or as zeros once its sums overflow."""
    refused = 0
    for title, values in huge_values():
        values = single(values)
        importance = importance_of(COLUMNS) if is_weighted else None
        decoded = [
            encoders.decode(name, encode(name, values, importance)).reshape(-1, kquants.TYPES[name][0])
            for encode in (encoders.ours, encoders.theirs)
        ]
        for mine, other, block in zip(*decoded, values.reshape(decoded[0].shape), strict=True):
            if np.isfinite(mine).all():
                assert np.array_equal(mine, other), title
            else:
                refused += 1
                assert not np.isfinite(other).all() or np.abs(other).max() < 1e-3 * np.abs(block).max(), title
    assert refused > 0


@weighted
@every_type
def test_real_weights(name, is_weighted, encoders):
    same = {title: compare(encoders, name, title, values, is_weighted) for title, values in real_values()}
    assert len(same) == 30
    if platform.machine() == "x86_64":
        assert all(same.values())
