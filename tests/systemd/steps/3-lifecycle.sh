# Start, crash, hang, restart, reboot.

start_means_ready() {
    step "start"
    drop_in <<<$'[Service]\nExecStart=\nExecStart=/bin/sleep 60\nTimeoutStartSec=2\nRestart=no'
    fails "a process that never says READY does not count as started" inside systemctl restart "$UNIT"
    is "systemd gave up waiting for it" timeout "$(property Result)"
    no_drop_in
    taken_port_is_waited_for
}

# As when the process before is still going away. The guide: it fails, stays in auto-restart, and heals by itself.
taken_port_is_waited_for() {
    local since; since=$(mark)
    inside systemctl stop "$UNIT"
    inside systemctl reset-failed "$UNIT"
    inside systemd-run --quiet --unit=squatter systemd-socket-activate -l 127.0.0.1:8091 /bin/cat
    within 5 inside_sh 'ss -Hltn | grep -q 127.0.0.1:8091' || fail "something else takes port 8091"
    fails "with a port taken, systemctl start fails" inside systemctl start "$UNIT"
    holds "the unit waits for its next try" within 5 property_is SubState auto-restart
    has "the log names the port" "$(hub_log "$since")" '"level":"ERROR".*ADMIN_PORT: cannot listen on 127.0.0.1:8091'
    inside systemctl stop squatter
    holds "once the port is free, it starts by itself" within 10 property_is ActiveState active
}

comes_back_by_itself() {
    step "crash and hang"
    comes_back_after_kill
    comes_back_after_hang
}

comes_back_after_kill() {
    restart
    local pid restarts; pid=$(main_pid) restarts=$(property NRestarts)
    inside_sh 'kill -KILL "$1"' "$pid"
    holds "kill -9: back within 5 s as another process" within 5 is_back_instead_of "$pid"
    is "one restart more is counted" $((restarts + 1)) "$(property NRestarts)"
    holds "and it answers" port_is_open 8090
}

# 30 s would be long to wait for.
comes_back_after_hang() {
    drop_in <<<$'[Service]\nWatchdogSec=3'
    restart
    local since pid; since=$(mark) pid=$(main_pid)
    holds "a hub that lives is left alone for longer than the watchdog's time" throughout 4 property_is MainPID "$pid"
    inside_sh 'kill -STOP "$1"' "$pid"
    holds "SIGSTOP: the watchdog brings another process within 12 s" within 12 is_back_instead_of "$pid"
    has "it was the watchdog" "$(journal "$since")" 'Watchdog timeout'
    is "one restart is counted" 1 "$(property NRestarts)"
    no_drop_in
    restart
}

# With a client that is connected, as on any evening.
restarts_gracefully() {
    step "graceful restart"
    local client=$WORK/client.out since pid started took curl log
    upgrade "/ws?ticket=$(ticket)" --max-time 50 -o - >"$client" &
    curl=$!
    within 10 grep -qa '"type":"connected"' "$client" || fail "a client is connected" "$(cat "$client")"
    since=$(mark) pid=$(main_pid) started=$(now_ms)
    holds "systemctl restart succeeds" inside systemctl restart "$UNIT"
    took=$(($(now_ms) - started))
    holds "in less than TimeoutStopSec=30s (it took $took ms)" test "$took" -lt 30000
    is "TimeoutStopSec is that" 30s "$(property TimeoutStopUSec)"
    wait "$curl"
    has "the client was told server_restart" "$(tr -d '\0' <"$client")" '"message":"server_restart"'
    log=$(journal "$since")
    has "the log says stopping" "$log" '"message":"stopping"'
    has "and stopped" "$log" '"message":"stopped"'
    has "systemd calls it a success" "$log" 'Deactivated successfully'
    lacks "nothing was killed or failed" "$log" "Killing process|timed out|Failed with result|\"level\":\"ERROR\""
    holds "another process serves" is_back_instead_of "$pid"
    stop_is_clean
}

stop_is_clean() {
    inside systemctl stop "$UNIT"
    is "systemctl stop: the hub exits by itself with status 0" "1 0 success" \
        "$(property ExecMainCode) $(property ExecMainStatus) $(property Result)"
    holds "and stays down" throughout 3 property_is ActiveState inactive
    inside systemctl start "$UNIT"
}

survives_a_reboot() {
    step "reboot"
    holds "the machine shuts down in time" power_off
    boot
    holds "the hub is up after boot by itself" within 15 property_is ActiveState active
    has "and was stopped in good order before" "$(inside journalctl --no-pager -b -1 -o cat --unit="$UNIT" | tail -n 10)" \
        'Deactivated successfully'
    has "the release check agrees" "$(release_check)" '^everything works$'
}
