#!/bin/sh
# Usage: pack.sh DIR. Packs the release binary ($NIBBLE), the shared libraries it needs beyond
# glibc, the licences, and the README into DIR/nibble-VERSION-OS-ARCH.tar.gz.
set -eu
cd "$(dirname "$0")/../.."
out=$1
[ "$(uname -s)" = Linux ] || { echo "dist: the tarball is made on Linux only; use make install" >&2; exit 1; }

version=$("$NIBBLE" --version | awk 'NR == 1 { print $2 }')
name=nibble-$version-linux-$(uname -m)
rm -rf "${out:?}"
mkdir -p "$out/$name/licenses"
strip -o "$out/$name/nibble" "$NIBBLE"
cp LICENSE README.md "$out/$name/"

# OpenBLAS is loaded on first use and so is not in the binary's own list.
blas=$(ldconfig -p | awk '$1 == "libopenblas.so.0" { print $NF; exit }')
[ -n "$blas" ] || { echo "dist: libopenblas.so.0 is not installed" >&2; exit 1; }

# What glibc itself provides must come from the machine that runs the tool.
{ echo "libopenblas.so.0 $blas"; ldd "$NIBBLE" "$blas" | awk '$2 == "=>" { print $1, $3 }'; } | sort -u |
  grep -Ev '^(libc|libm|libdl|librt|libpthread|libresolv)\.so' |
  while read -r library path; do
    cp -L "$path" "$out/$name/$library"
    # Debian's alternatives hide which package a file is from; its real path tells.
    package=$(dpkg-query -S "$(readlink -f "$path")" "*/$library" 2>/dev/null | head -n 1 | cut -d: -f1)
    cp "/usr/share/doc/$package/copyright" "$out/$name/licenses/$library.txt"
  done

tar -C "$out" --owner=0 --group=0 --sort=name -czf "$out/$name.tar.gz" "$name"
rm -rf "${out:?}/$name"
ls -l "$out/$name.tar.gz" | awk '{ printf "%s  %.1f MB\n", $NF, $5 / 1e6 }'
