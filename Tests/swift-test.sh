#!/bin/sh
# Usage: swift-test.sh ARGUMENT... Runs `swift test`, and fails too when a test was skipped for a reason that is not
# expected: one that stops running is found when it stops.
set -u

# Every reason to skip that is no fault: what this machine does not let a test do, and what other targets of the
# Makefile run.
expected='needs strace and the right to trace
needs root and the right to mount
needs root, setpriv, and a tool that every user may run
needs root and chattr
needs /proc
needs /dev/full
measurements are made when NIBBLE_TIMING is set
make test-rules writes the cases and sets NIBBLE_ARCHITECTURE_CASES'

# What make test-swift runs optimized.
case " $* " in
*" -c release "*) ;;
*)
  expected="$expected
a million tensors need an optimized build
100 MB of header need an optimized build"
  ;;
esac

log=$(mktemp)
trap 'rm -f "$log" "$log.status"' EXIT
{ swift test "$@" 2>&1; echo $? >"$log.status"; } | tee "$log"
status=$(cat "$log.status")

unexpected=$(grep -E ' skipped(\.|: ")' "$log" | grep -vE ' after [0-9.]+ seconds' | while read -r line; do
  reason=$(printf '%s\n' "$line" | sed -n 's/.* skipped: "\(.*\)"\.\{0,1\}$/\1/p')
  printf '%s\n' "$expected" | grep -qxF -- "${reason:-none is given}" || printf '%s\n' "$line"
done)
if [ -n "$unexpected" ]; then
  printf '%s\n' "$unexpected" '' "Skipped for reasons that $0 does not list as expected." >&2
  [ "$status" -ne 0 ] || status=1
fi
exit "$status"
