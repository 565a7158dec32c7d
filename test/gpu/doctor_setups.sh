#!/usr/bin/env bash
# fabricmem-doctor on a machine with a GPU, where the channel nodes are as they should not be: none, another user's, of a
# wrong major, two processes with different ones; and as they should be. Each set-up is a private mount namespace, so that
# nothing of the machine is changed. Needs root.
#   doctor_setups.sh DOCTOR OUT   the outputs lie in OUT, and exit code and check are held against what is expected
set -euo pipefail

doctor=$(realpath "$1")
out=$2
nodes=/dev/nvidia-caps-imex-channels
failures=0

skip() { echo "doctor set-ups: not run: $*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "they need root"
[ -d "$nodes" ] || skip "there is no $nodes"
major=$(awk '$2 == "nvidia-caps-imex-channels" { print $1 }' /proc/devices)
[ -n "$major" ] || skip "the driver has no IMEX channels"
unshare -m true 2>/dev/null || skip "mount namespaces are not permitted here"
mkdir -p "$out"
# Where any user can run it.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
chmod 0755 "$copy"
cp "$doctor" "$copy/fabricmem-doctor"
doctor=$copy/fabricmem-doctor

# setup MAJOR MODE "NUMBER..." COMMAND...: runs the command where these nodes are there and no other.
setup() {
    # shellcheck disable=SC2016  # the inner shell expands it
    unshare -m bash -c '
        set -e
        mount --make-rprivate /
        mount -t tmpfs -o mode=0755 tmpfs "$0"
        for number in $3; do mknod -m "$2" "$0/channel$number" c "$1" "$number"; done
        shift 3
        exec "$@"' "$nodes" "$@"
}

# expect NAME CODE CHECK COMMAND...: CHECK is the id that the verdict has to rest on; empty: none.
expect() {
    local name=$1 code=$2 check=$3 got=0
    shift 3
    echo "== doctor: $name"
    "$@" </dev/null >"$out/doctor-$name.txt" 2>"$out/doctor-$name.err" || got=$?
    cat "$out/doctor-$name.txt"
    if [ "$got" != "$code" ]; then
        echo "doctor set-ups: FAILED: $name: exit code $got, not $code"
        cat "$out/doctor-$name.err"
        failures=$((failures + 1))
    elif [ -n "$check" ] && ! grep -q "$check" "$out/doctor-$name.txt"; then
        echo "doctor set-ups: FAILED: $name: it does not name $check"
        failures=$((failures + 1))
    elif [ -z "$check" ] && grep -q 'FM-CHANNEL' "$out/doctor-$name.txt"; then
        echo "doctor set-ups: FAILED: $name: it blames a channel"
        failures=$((failures + 1))
    fi
}

expect no-channel 2 FM-CHANNEL-001 setup "$major" 0666 "" "$doctor" --driver cuda
expect another-users 2 FM-CHANNEL-002 setup "$major" 0600 0 \
    setpriv --reuid=65534 --regid=65534 --clear-groups -- "$doctor" --driver cuda
expect wrong-major 2 FM-CHANNEL-004 setup "$((major + 1))" 0666 0 "$doctor" --driver cuda
expect well 0 "" setup "$major" 0666 0 "$doctor" --driver cuda

# Exporter and importer on different channels.
rm -f "$out/listen.err"
setup "$major" 0666 0 "$doctor" --driver cuda --listen 127.0.0.1:0 >"$out/doctor-listen.txt" 2>"$out/listen.err" </dev/null &
listener=$!
port=
while [ -z "$port" ] && kill -0 "$listener" 2>/dev/null; do
    port=$(sed -n 's/^listening on 127.0.0.1:\([0-9]*\)$/\1/p' "$out/listen.err")
    [ -n "$port" ] || read -rt 0.05 <> <(:) || true
done
expect different-channels 2 FM-CHANNEL-007 setup "$major" 0666 1 "$doctor" --driver cuda --connect "127.0.0.1:${port:-1}"
wait "$listener" || true
echo "== doctor: the other side of different-channels"
cat "$out/doctor-listen.txt"
grep -q FM-CHANNEL-007 "$out/doctor-listen.txt" || { echo "doctor set-ups: FAILED: the listener does not name FM-CHANNEL-007"; failures=$((failures + 1)); }

# How long it takes where nothing hangs: the figure for docs/hardware.md.
begin=$(date +%s%N)
"$doctor" --driver cuda >/dev/null 2>&1 </dev/null || true
echo "doctor set-ups: a whole run took $((($(date +%s%N) - begin) / 1000000)) ms"
exit $((failures > 0))
