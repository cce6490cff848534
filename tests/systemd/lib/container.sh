# A Debian 12 with systemd as its init, and the ways into it.

ROOT_CACHE=$OUT/systemd-root
# Everything the guide uses, and jq to read the journal. A change here makes a new root.
PACKAGES=systemd,systemd-sysv,dbus,nginx,ca-certificates,openssl,curl,iproute2,jq
RELEASE=bookworm

WORK=          # this run's folder: the root it boots, and its logs
ROOT=
NSPAWN=        # pid of systemd-nspawn
LEADER=        # pid, out here, of the init in there
CGROUPS=()     # control groups made for this run

preflight() {
    step "this machine can do it"
    [ "$(id -u)" -eq 0 ] || die "runs as root"
    local tool
    for tool in debootstrap systemd-nspawn nsenter unshare flock openssl; do
        command -v "$tool" >/dev/null || die "$tool is installed"
    done
    [ -x "$BINARY" ] || die "$BINARY is a program"
    mkdir -p "$OUT" && rm -f "$OUT/systemd-journal.log"
    # One run at a time: they share the cached root.
    exec 9>"$OUT/systemd.lock"
    flock -w 600 9 || die "the run before this one has ended"
    pass "root, tools and binary are there"
}

# The mirror that apt uses here.
mirror() {
    local uri
    # Reads all of it: a pipe that is closed early would be an error.
    uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Identifier: Packages' 2>/dev/null |
        awk -v release="$RELEASE" '$2 == release && !found { print $1; found = 1 }')
    echo "${uri:-http://deb.debian.org/debian}"
}

# apt's proxy, for debootstrap, which knows only the environment.
use_apts_proxy() {
    local http_proxy_of_apt=
    eval "$(apt-config shell http_proxy_of_apt Acquire::http::Proxy 2>/dev/null)"
    [ -z "$http_proxy_of_apt" ] || export http_proxy=$http_proxy_of_apt
}

make_root() {
    local recipe started=$SECONDS
    recipe="$RELEASE minbase $PACKAGES $(dpkg --print-architecture)"
    if [ "$(cat "$ROOT_CACHE.stamp" 2>/dev/null)" = "$recipe" ]; then
        pass "a cached Debian root is there"
        return
    fi
    rm -rf --one-file-system "$ROOT_CACHE" "$ROOT_CACHE.stamp"
    use_apts_proxy
    # In a mount namespace of its own: what debootstrap leaves mounted when it fails, goes with it.
    unshare --mount --propagation private debootstrap --variant=minbase --force-check-gpg \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
        --include="$PACKAGES" "$RELEASE" "$ROOT_CACHE" "$(mirror)" >"$OUT/debootstrap.log" 2>&1 9>&- ||
        die "debootstrap makes a Debian root" "$(tail -n 20 "$OUT/debootstrap.log")"
    rm -rf "$ROOT_CACHE"/var/cache/apt/archives/*.deb "$ROOT_CACHE"/var/lib/apt/lists/*
    echo "$recipe" >"$ROOT_CACHE.stamp"
    pass "debootstrap made a Debian root in $((SECONDS - started)) s"
}

# A copy, so that every run begins with the same system.
copy_root() {
    WORK=$(mktemp -d "$OUT/systemd-run.XXXXXX") && ROOT=$WORK/root
    cp -a "$ROOT_CACHE" "$ROOT" || die "the root can be copied"
    # A journal that outlives a reboot, and a machine that knows the domain.
    mkdir -p "$ROOT/var/log/journal"
    echo "duelhub-test" >"$ROOT/etc/hostname"
    printf '127.0.0.1 localhost %s\n' "$DOMAIN" >"$ROOT/etc/hosts"
}

boot() {
    local options=()
    # Where systemd is the init, it gives the container a scope. Elsewhere the container stays in groups that we make.
    if [ -d /run/systemd/system ]; then
        CGROUPS=()
    else
        options=(--keep-unit)
        make_cgroups
    fi
    (
        for group in "${CGROUPS[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
        exec systemd-nspawn --directory="$ROOT" --boot --register=no "${options[@]}" --machine="duelhub-$$" \
            --private-network --link-journal=no --resolv-conf=off --timezone=off --console=pipe
    ) >>"$WORK/console.log" 2>&1 </dev/null 9>&- &
    NSPAWN=$!
    within 20 find_leader_or_its_end
    [ -n "$LEADER" ] || die "systemd-nspawn boots a container here" "$(cat "$WORK/console.log")"
    within 30 inside systemctl is-system-running --wait ||
        within 1 inside_sh '[ "$(systemctl is-system-running)" = degraded ]' ||
        die "systemd comes up in the container" "$(inside systemctl is-system-running 2>&1; cat "$WORK/console.log")"
    pass "systemd $(inside systemctl --version | awk 'NR == 1 { print $2 }') runs in a container"
}

make_cgroups() {
    local parent
    CGROUPS=()
    for parent in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
        [ -e "$parent/cgroup.procs" ] || continue
        mkdir -p "$parent/duelhub-test-$$" && CGROUPS+=("$parent/duelhub-test-$$")
    done
}

# The child of systemd-nspawn that is process 1 in a namespace one deeper than ours.
find_leader() {
    local child
    for child in $(cat "/proc/$NSPAWN/task/$NSPAWN/children" 2>/dev/null); do
        if awk '/^NSpid:/ { deep = NF == 3 && $3 == 1 } END { exit !deep }' "/proc/$child/status" 2>/dev/null; then
            LEADER=$child
            return 0
        fi
    done
    return 1
}

find_leader_or_its_end() { find_leader || gone "$NSPAWN"; }

# Runs a command in the container, as root, for at most a minute.
inside() {
    timeout --kill-after=5 60 nsenter --target "$LEADER" --all -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 SYSTEMD_PAGER= "$@" 9>&-
}

# The same for a line of shell. Its arguments are $1, $2...
inside_sh() {
    local script=$1; shift
    inside bash -o pipefail -c "$script" bash "$@"
}

# Shuts the container down as a host is shut down.
power_off() {
    inside systemctl poweroff >/dev/null 2>&1
    within 40 gone "$NSPAWN" || return 1
    wait "$NSPAWN" 2>/dev/null
    NSPAWN= LEADER=
}

gone() { ! kill -0 "$1" 2>/dev/null; }

# With the init, everything in its namespace is killed.
kill_container() {
    [ -n "$NSPAWN" ] || return 0
    [ -n "$LEADER" ] || find_leader
    [ -z "$LEADER" ] || kill -KILL "$LEADER" 2>/dev/null
    within 10 gone "$NSPAWN" || kill -KILL "$NSPAWN" 2>/dev/null
    wait "$NSPAWN" 2>/dev/null
    NSPAWN= LEADER=
}

remove_cgroups() {
    local group
    for group in "${CGROUPS[@]}"; do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
    done
}

# Whatever happens: nothing keeps running, nothing stays mounted, and the last line is the result.
finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM
    if [ "$FAILED" -gt 0 ] && [ -n "$LEADER" ]; then
        inside journalctl --no-pager -o short-precise >"$OUT/systemd-journal.log" 2>/dev/null &&
            echo "the container's journal: $OUT/systemd-journal.log"
    fi
    kill_container
    remove_cgroups
    # The mounts of the container were in its own namespace and went with it; this is for the copy alone.
    [ -z "$WORK" ] || rm -rf --one-file-system "$WORK"
    [ "$status" -eq 0 ] || [ "$FAILED" -gt 0 ] || fail "the run was ended before its end (status $status)"
    result
    exit $?
}
