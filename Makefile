# `make` builds the tool, `make demo` shows it at work, `make test` checks everything.
# System packages that are missing are installed, and named before they are.

PREFIX ?= /usr/local
PYTHON ?= python3
PYTEST_FLAGS ?=
SYSTEM := $(shell uname -s)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
NIBBLE := $(CURDIR)/.build/release/nibble

ifeq ($(SYSTEM),Darwin)
BUILD_PACKAGES := highway xxhash zstd
TEST_PACKAGES := xxhash
HOMEBREW := $(shell brew --prefix 2>/dev/null)
SWIFT_FLAGS := -Xcc -I$(HOMEBREW)/include -Xlinker -L$(HOMEBREW)/lib
RELEASE_FLAGS := $(SWIFT_FLAGS)
else
# g++ for the C++ headers that the kernels include; clang comes with Swift.
BUILD_PACKAGES := g++ libhwy-dev libopenblas0 libxxhash-dev libzstd-dev nettle-dev
TEST_PACKAGES := xxhash g++ strace util-linux e2fsprogs
SWIFT_FLAGS :=
# The run path lets the same binary find the libraries that `make dist` lays beside it. It is an
# RPATH, not a RUNPATH, because it must also serve what those libraries ask for in turn.
RELEASE_FLAGS := --static-swift-stdlib -Xlinker -rpath -Xlinker '$$ORIGIN' -Xlinker --disable-new-dtags
endif

# A target imports what Package.swift says it may, and nothing else.
ARROWS := --explicit-target-dependency-import-check error

# Tests of large inputs need an optimized build. It is still checked as a debug build: what lies outside of unsafe memory,
# and `assert`. Not optimized across modules: the compiler of Swift 6.3 does not survive that with -enable-testing. It has
# a folder of its own, as other flags would build the tool anew.
OPTIMIZED := -c release --scratch-path .build/optimized -Xswiftc -enable-testing -Xswiftc -disable-cmo \
  -Xswiftc -assert-config -Xswiftc Debug $(SWIFT_FLAGS)
SWIFT_TEST_FLAGS ?=

# Processes of the Python tests; each needs 2 GB of memory.
JOBS ?= 2

SWIFT_SOURCES := Package.swift Formats Sources Tests
INTERPRETER = $$($(PYTHON) Tests/Interop/environment.py)

.PHONY: all help build demo install clean format lint test test-fast test-long test-swift test-optimized \
        test-interop test-rules test-cpus test-dist test-dist-debian bench bench-13b quality gpu-proof gpu-proof-pack dist \
        build-packages test-packages environment
.NOTPARALLEL:
all: build

help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- packages of the system -----------------------------------------------------------------------

# $(call install-packages,NAMES): nothing when all are there.
ifneq ($(shell command -v apt-get),)
define install-packages
missing=$$(for package in $(1); do \
  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || echo $$package; done); \
if [ -n "$$missing" ]; then \
  echo "installing with apt:" $$missing; \
  $(SUDO) apt-get update -qq; \
  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
fi
endef
else ifneq ($(shell command -v brew),)
define install-packages
missing=$$(for package in $(1); do brew list $$package >/dev/null 2>&1 || echo $$package; done); \
if [ -n "$$missing" ]; then echo "installing with brew:" $$missing; brew install --quiet $$missing; fi
endef
else
install-packages = echo "neither apt nor brew is here; needed: $(1)"
endif

build-packages:
	@$(call install-packages,$(BUILD_PACKAGES))

# Of the interpreter that the tests run on: DeepSpeed compiles its operators against them.
HAS_HEADERS := import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))

test-packages:
	@$(call install-packages,$(TEST_PACKAGES))
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(call install-packages,python3-venv); }
	@$(PYTHON) -c '$(HAS_HEADERS)' || { $(call install-packages,python3-dev); }

# --- the tool -------------------------------------------------------------------------------------

build: build-packages ## the tool, .build/release/nibble
	@swift build -c release --product nibble $(ARROWS) $(RELEASE_FLAGS)

demo: build ## shows it at work on a small model
	@set -e; out=$$(mktemp -d); trap 'rm -rf "$$out"' EXIT; \
	model=fixtures/sql-llama; small=$$out/sql-llama-nf4; damaged=$$out/damaged; \
	run() { printf '\n$$ nibble %s\n' "$$*"; "$(NIBBLE)" "$$@"; }; \
	run inspect $$model; \
	run quantize $$model -o $$small; \
	run inspect $$small; \
	run verify $$small; \
	printf '\n# one flipped bit:\n'; \
	cp -r $$small $$damaged; \
	for shard in $$damaged/*.safetensors; do :; done; \
	byte=$$(tail -c 1000 $$shard | head -c 1 | od -An -tu1); \
	printf "\\$$(printf %o $$((byte ^ 1)))" | \
	  dd of=$$shard bs=1 seek=$$(($$(wc -c < $$shard) - 1000)) conv=notrunc status=none; \
	status=0; run verify $$damaged || status=$$?; \
	printf '(exit code %s)\n' $$status; [ $$status -eq 1 ]; \
	printf '\n# after training, an adapter that was trained on the 4-bit weights:\n'; \
	run merge $$small fixtures/sql-llama-dialect -o $$out/sql-llama-dialect; \
	run verify $$out/sql-llama-dialect; \
	printf '\n# and for llama.cpp, in one step:\n'; \
	run quantize $$out/sql-llama-dialect -o $$out/sql-llama-dialect.gguf --scheme q4_k_m; \
	run verify $$out/sql-llama-dialect.gguf

install: build ## to PREFIX, /usr/local unless named
	@install -d "$(DESTDIR)$(PREFIX)/bin"
	@install -m 755 "$(NIBBLE)" "$(DESTDIR)$(PREFIX)/bin/nibble"
	@echo "installed $(DESTDIR)$(PREFIX)/bin/nibble"

clean: ## removes what was built
	@rm -rf .build dist gpu-proof-work
	@find Tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- style ----------------------------------------------------------------------------------------

# swift format comes with the compiler and reads .swift-format; .ruff.toml says what Python is held to.
format: ## lays out the Swift sources, and mends of the Python ones what ruff can
	@swift format --in-place --recursive --parallel $(SWIFT_SOURCES)
	@"$$($(PYTHON) Tests/Interop/environment.py lint)" -m ruff check --no-cache --quiet --fix .

lint: test-packages ## what `make format` would change, and what is wrong by rule; part of `make test`
	@swift format lint --strict --recursive --parallel $(SWIFT_SOURCES)
	@"$$($(PYTHON) Tests/Interop/environment.py lint)" -m ruff check --no-cache --quiet .

# --- tests ----------------------------------------------------------------------------------------

test: lint test-swift test-dist test-interop ## everything that a change is held to

# Slow architectures, block sizes and limits, the rules of every class, other processors' kernels, and the tarball inside
# a bare Debian.
test-long: lint test-swift test-optimized test-dist test-dist-debian ## that, and what takes long
	@$(MAKE) --no-print-directory test-interop PYTEST_FLAGS="--long $(PYTEST_FLAGS)"
	@$(MAKE) --no-print-directory test-rules
	@$(MAKE) --no-print-directory test-cpus

# Formats, kernels, rules and plans, the verbs, every byte of what they write about tiny models, and what stock libraries
# make of it; without the thousands of damaged files, and without what is large to see that its time and memory are not.
FAST_SUITES := (Bytes|JSON|Tensors|Patterns|Safetensors|GGUF|PyTorch|Adapters|Architectures)Tests\. QuantizationTests\..*Golden \
  (Checkpoints|Comparison|ModelFamilies|PackedWeights|Patterns|Tokenizers|TypeMixtures|Verification|Writing)Tests\. \
  ToolTests\.(CommandLine|Diff|Merge|Message|Reshard)Tests
SLOW_SUITES := (Mutation|Budget)Tests/ /(many[A-Z]|lengthAtTheLimit|takesTimeInProportion|everyRuleCanBeRead|sizeIsLimited|choosesAsLlama)
FAST_FILES := manifest options outputs python_json python_verify refusals
test-fast: build test-packages environment ## the most telling tests of each kind, in two minutes once all is built
	@NIBBLE="$(NIBBLE)" Tests/swift-test.sh $(SWIFT_FLAGS) $(FAST_SUITES:%=--filter '^%') \
	  $(SLOW_SUITES:%=--skip '%')
	@NIBBLE="$(NIBBLE)" "$(INTERPRETER)" -m pytest -q $(FAST_FILES:%=Tests/Interop/test_%.py) $(PYTEST_FLAGS)

# An optimized build of all tests takes three times as long as one for debugging, and begins anew with every change of a
# target. So only the target is built so whose tests would not run at all.
test-swift: build test-packages ## the Swift tests; SWIFT_TEST_FLAGS="--filter NAME" chooses
	@NIBBLE="$(NIBBLE)" Tests/swift-test.sh $(SWIFT_FLAGS) $(SWIFT_TEST_FLAGS)
ifeq ($(SWIFT_TEST_FLAGS),)
	@NIBBLE_TESTS=SafetensorsTests swift build --product nibblePackageTests $(OPTIMIZED)
	@NIBBLE_TESTS=SafetensorsTests Tests/swift-test.sh --skip-build $(OPTIMIZED)
endif

test-optimized: build test-packages ## all of them in an optimized build, with more values
	@NIBBLE="$(NIBBLE)" Tests/swift-test.sh $(OPTIMIZED) $(SWIFT_TEST_FLAGS)

# The environment is built once and kept outside the repository, see Tests/Interop/environment.py.
environment: test-packages
	@$(PYTHON) Tests/Interop/environment.py >/dev/null

test-interop: build environment ## the Python tests against stock libraries; PYTEST_FLAGS="-k NAME" chooses
	@NIBBLE="$(NIBBLE)" "$(INTERPRETER)" -m pytest -q -n $(JOBS) --dist loadfile Tests/Interop $(PYTEST_FLAGS)

# Which weights of every class that transformers has are quantized, by its own loader and by Nibble.
test-rules: build environment ## the rules of every class of transformers
	@NIBBLE="$(NIBBLE)" "$(INTERPRETER)" Sources/Architectures/check.py

# What depends on kernels, with those of every processor that this one can pass for: Nibble's own, of which the Swift
# tests run each, then those of BLAS and of the libraries that it is compared with.
test-cpus: build test-packages environment ## what depends on kernels, with those of other processors
	@NIBBLE="$(NIBBLE)" Tests/swift-test.sh $(SWIFT_FLAGS) --filter '^QuantizationTests'
	@NIBBLE="$(NIBBLE)" "$(INTERPRETER)" Tests/Interop/cpus.py $(PYTEST_FLAGS)

# --- measurements ---------------------------------------------------------------------------------

bench: build environment ## speeds, beside those of other tools
	@NIBBLE="$(NIBBLE)" "$(INTERPRETER)" Tests/Bench/bench.py

# LAYERS=2 tries it small; DTYPE=float16; BENCH_DIR moves the 26 GB elsewhere.
bench-13b: build environment ## a checkpoint of 26 GB
	@NIBBLE="$(NIBBLE)" "$(INTERPRETER)" Tests/Bench/bench_13b.py

# Takes half an hour, most of it the judge's.
quality: build environment ## what each way of quantizing costs a model
	@NIBBLE="$(NIBBLE)" "$(INTERPRETER)" Tests/Bench/quality.py

# Does a 13B model train on 24 GiB? Measured on an NVIDIA card; without one what needs none is run, small, and the
# page that comes out says what was not. PYTHON names one with PyTorch for CUDA; with
# GPU_PROOF_FLAGS="--steps checkpoint,quantize" it runs in parts, GPU_PROOF_FLAGS=--help tells the rest. The page goes
# to $OUT, or to gpu-proof-results.
gpu-proof: build ## does a 13B model train on 24 GiB?
	@NIBBLE="$(NIBBLE)" $(PYTHON) Tests/GPU/gpu_proof.py $(GPU_PROOF_FLAGS)

# The same for a machine without network: one tar with the tool, the scripts and the wheels of PyTorch for CUDA (3 GB),
# or WHEELS=none. There, ./gpu-proof runs it. PYTHON_VERSIONS="3.11 3.12": what that machine may have.
gpu-proof-pack: build ## the same, packed for a machine without network
	@NIBBLE="$(NIBBLE)" Tests/GPU/pack.sh dist

# --- the tarball ----------------------------------------------------------------------------------

dist: build ## a tarball with the libraries that the tool needs
	@NIBBLE="$(NIBBLE)" Tests/Dist/pack.sh dist

test-dist: dist ## the tarball in an empty root
	@Tests/Dist/try.sh dist/nibble-*.tar.gz

test-dist-debian: dist ## the tarball in a bare Debian
	@$(call install-packages,debootstrap)
	@Tests/Dist/try.sh dist/nibble-*.tar.gz debian
