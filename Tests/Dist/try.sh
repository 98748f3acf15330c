#!/bin/sh
# Usage: try.sh TARBALL [debian]. Runs the packed tool in a root folder that holds nothing but the
# tarball and glibc (with `debian`: a minimal Debian made by debootstrap): no Swift, no -dev package.
set -eu
cd "$(dirname "$0")/../.."
tarball=$1 kind=${2:-glibc}
case $(uname -s) in Linux) ;; *) echo "dist: not tried, the tarball is for Linux"; exit 0 ;; esac

# The loader's own path is fixed in the binary; the two libraries are found through its defaults.
loader=$(readelf -p .interp .build/release/nibble | awk '/ld-/ { print $NF }')
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
if [ "$kind" = debian ]; then
  [ "$(id -u)" = 0 ] || { rmdir "$root"; exec sudo "$0" "$@"; }
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  debootstrap --variant=minbase "$release" "$root" >/dev/null
else
  mkdir -p "$root/tmp"
  for file in "$loader" "$(ldconfig -p | awk '$1 == "libc.so.6" { print $NF; exit }')" \
    "$(ldconfig -p | awk '$1 == "libm.so.6" { print $NF; exit }')"; do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
  done
fi
mkdir -p "$root/opt"
tar -C "$root/opt" -xzf "$tarball"
folder=$(basename "$tarball" .tar.gz)
mkdir -p "$root/model"
cp fixtures/sql-llama/*.json fixtures/sql-llama/*.safetensors "$root/model/"
mkdir -p "$root/adapter"
cp fixtures/sql-llama-dialect/*.json fixtures/sql-llama-dialect/*.safetensors "$root/adapter/"

# The loader finds $ORIGIN, and Swift its arguments, through /proc. Where that cannot be mounted, as in a
# container without the right to, the root's own loader runs the tool from outside.
mkdir -p "$root/proc"
[ "$(id -u)" = 0 ] && namespace="unshare --mount --pid --fork" || namespace="unshare --map-root-user --mount --pid --fork"
enter='mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
if $namespace sh -c 'mount -t proc proc "$0/proc"' "$root" 2>/dev/null; then
  inside() { $namespace sh -c "$enter" "$root" "/opt/$folder/nibble" "$@"; }
else
  echo "dist: /proc cannot be mounted here, so the tool is not shut into its root"
  libraries="$root/opt/$folder:$root/lib/$(uname -m)-linux-gnu:$root/lib64"
  inside() { (cd "$root" && "./$loader" --inhibit-cache --library-path "$libraries" "opt/$folder/nibble" "$@"); }
fi
inside --version
inside quantize model -o tmp/quantized --quiet
inside verify tmp/quantized --quiet
# The library that is loaded on first use is found too.
inside merge tmp/quantized adapter -o tmp/merged --quiet
echo "dist: $folder runs in an empty root ($kind)"
