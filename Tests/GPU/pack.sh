#!/bin/sh
# Usage: pack.sh DIR. Packs all that `gpu-proof` needs on a machine without network into DIR/gpu-proof-VERSION.tar.
#
# NIBBLE           the release binary
# WHEELS           none: no wheels, for machines whose Python has PyTorch for CUDA and the rest already
# TORCH            the requirement of torch (default: the version of the tests, in the index's own build, which on
#                  Linux is the one for CUDA; === takes no build with a local version, such as one for the CPU).
#                  For an older driver: another build, from where pip's own settings find it
# PYTHON_VERSIONS  of the machine with the card, such as "3.11 3.12" (default: that of PYTHON, or python3)
set -eu
cd "$(dirname "$0")/../.."
mkdir -p "$1"
out=$(cd "$1" && pwd)
python=${PYTHON:-python3}
[ -x "$NIBBLE" ] || { echo "gpu-proof: no nibble at $NIBBLE; build it with make" >&2; exit 1; }

name=gpu-proof-$("$NIBBLE" --version | awk 'NR == 1 { print $2 }')
folder=$out/$name
rm -rf "${folder:?}" "$folder.tar"
temporary=$(mktemp -d)
trap 'rm -rf "$temporary" "${folder:?}"' EXIT
mkdir -p "$folder/tool" "$folder/Tests/Bench" "$folder/Tests/Interop" "$folder/fixtures"

# The tool with its libraries is what `make dist` packs.
Tests/Dist/pack.sh "$temporary/dist" >/dev/null
tar -C "$folder/tool" --strip-components=1 -xzf "$temporary"/dist/nibble-*.tar.gz
cp -r Tests/GPU "$folder/Tests/"
cp Tests/Bench/models.py "$folder/Tests/Bench/"
cp Tests/Interop/oracle.py Tests/Interop/checkpoint.py Tests/Interop/requirements.txt "$folder/Tests/Interop/"
cp -r fixtures/sql-llama "$folder/fixtures/"
cp LICENSE README.md "$folder/"
if [ -d Sources/Python/nibble ]; then
  mkdir -p "$folder/Sources"
  cp -r Sources/Python "$folder/Sources/"
else
  echo "gpu-proof: Sources/Python/nibble is not here; what needs it will not run" >&2
fi
find "$folder" -name __pycache__ -type d -prune -exec rm -rf {} +
cp Tests/GPU/gpu-proof "$folder/gpu-proof"
chmod 755 "$folder/gpu-proof"

if [ "${WHEELS:-}" != none ]; then
  pinned() { grep -E "^$1==" Tests/Interop/requirements.txt; }
  mkdir "$folder/wheels"
  {
    echo "${TORCH:-$(pinned torch | sed 's/==/===/')}"
    for package in accelerate bitsandbytes numpy peft safetensors transformers xxhash; do pinned "$package"; done
  } > "$folder/wheels/requirements.txt"
  grep -v '^torch==' Tests/Interop/requirements.txt > "$temporary/constraints.txt"
  for version in ${PYTHON_VERSIONS:-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}; do
    "$python" -m pip download --quiet --disable-pip-version-check --dest "$folder/wheels" --only-binary=:all: \
      --python-version "$version" --constraint "$temporary/constraints.txt" \
      --requirement "$folder/wheels/requirements.txt" pip
  done
  # A build for the processor alone would be found out only on the machine with the card.
  ls "$folder/wheels" | grep -q '^nvidia_' ||
    { echo "gpu-proof: the torch that pip chose is not for CUDA; name one in TORCH, or use WHEELS=none" >&2; exit 1; }
fi

# Wheels are compressed already.
tar -C "$out" --owner=0 --group=0 --sort=name -cf "$folder.tar" "$name"
ls -l "$folder.tar" | awk '{ printf "%s  %.1f MB\n", $NF, $5 / 1e6 }'
