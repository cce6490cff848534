# Counting what holds, and waiting for what must come.

PASSED=0
FAILED=0

step() { printf '\n== %s\n' "$*"; }

pass() { PASSED=$((PASSED + 1)); printf 'ok    %s\n' "$1"; }

# fail NAME [WHAT WAS SEEN]
fail() {
    FAILED=$((FAILED + 1))
    printf 'FAIL  %s\n' "$1"
    [ -z "${2:-}" ] || printf '%s\n' "$2" | tail -n 40 | sed 's/^/      /'
}

# What makes the rest pointless. Counts as a failure: a machine that cannot run this has proved nothing.
die() { fail "$@"; exit 1; }

# holds NAME COMMAND...: the command succeeds.
holds() {
    local name=$1 seen; shift
    if seen=$("$@" 2>&1); then pass "$name"; else fail "$name" "$seen"; fi
}

# fails NAME COMMAND...: it does not.
fails() {
    local name=$1 seen; shift
    if seen=$("$@" 2>&1); then fail "$name" "it succeeded: $seen"; else pass "$name"; fi
}

# is NAME EXPECTED ACTUAL
is() { if [ "$3" = "$2" ]; then pass "$1"; else fail "$1" "expected: $2"$'\n'"     was: $3"; fi; }

# has NAME TEXT REGEX: a line of the text matches.
has() { if grep -qE -- "$3" <<<"$2"; then pass "$1"; else fail "$1" "nothing matches: $3"$'\n'"$2"; fi; }

# lacks NAME TEXT REGEX: none does.
lacks() { if grep -qE -- "$3" <<<"$2"; then fail "$1" "this must not be there: $(grep -E -- "$3" <<<"$2")"; else pass "$1"; fi; }

# within SECONDS COMMAND...: succeeds as soon as the command does, fails at the deadline.
within() {
    local deadline=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# throughout SECONDS COMMAND...: the command never fails for so long. For what must not happen.
throughout() {
    local deadline=$((SECONDS + $1)); shift
    while [ "$SECONDS" -le "$deadline" ]; do
        "$@" || return 1
        sleep 0.1
    done
}

# Milliseconds of a clock that only goes forward.
now_ms() { awk '{ printf "%d", $1 * 1000 }' /proc/uptime; }

result() { printf '\n%d passed, %d failed\n' "$PASSED" "$FAILED"; [ "$FAILED" -eq 0 ]; }
