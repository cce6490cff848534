# The process that systemd started: who it is, what it may do, what it says.

process_is_confined() {
    step "the process"
    local pid status; pid=$(main_pid); status=$(inside cat "/proc/$pid/status")
    is "runs as www-data" "www-data www-data" "$(inside stat -c '%U %G' "/proc/$pid")"
    listens_on_loopback_alone "$pid"
    has "NoNewPrivs" "$status" '^NoNewPrivs:\s1$'
    has "no capability is in effect" "$status" '^CapEff:\s0+$'
    has "nor can one be had" "$status" '^CapBnd:\s0+$'
    has "seccomp filters" "$status" '^Seccomp:\s2$'
    has_filters_of_its_own "$pid"
    is "no core dump with secrets in it" "0 0" "$(inside awk '/^Max core/ { print $5, $6 }' "/proc/$pid/limits")"
    is "its state directory is its own" "www-data 700" "$(inside stat -c '%U %a' /var/lib/duelhub)"
    is "and what it has written there" "" "$(inside find /var/lib/duelhub -mindepth 1 -perm /077)"
    holds "which is something" inside_sh '[ -n "$(ls /var/lib/duelhub)" ]'
    is "threads are bounded" 1024 "$(property TasksMax)"
    sandbox_holds
    notify_is_set_up
}

listens_on_loopback_alone() {
    is "listens on loopback alone: 8090, 8091, 50051" \
        "127.0.0.1:50051 127.0.0.1:8090 127.0.0.1:8091" \
        "$(inside ss -Hltnp | grep "pid=$1," | awk '{ print $4 }' | sort | paste -sd ' ')"
    is "and on no datagram socket" "" "$(inside ss -Hlunp | grep "pid=$1,")"
}

# The container's init is filtered already, so that Seccomp=2 would be there without a line in the unit.
has_filters_of_its_own() {
    local count='/^Seccomp_filters:/ { print $2 }'
    holds "more of them than the container's init has" \
        test "$(inside awk "$count" "/proc/$1/status")" -gt "$(inside awk "$count" /proc/1/status)"
}

# The unit with a probe in place of the hub: what the sandbox lets a process do that has been taken over.
sandbox_holds() {
    local out
    inside tee /usr/local/bin/probe >/dev/null <<'END'
#!/bin/bash
tries() { if (eval "$2") >/dev/null 2>&1; then echo "can $1"; else echo "cannot $1"; fi; }
tries "write its state" 'echo x >/var/lib/duelhub/probe && rm /var/lib/duelhub/probe'
tries "read the env file" 'cat /var/www/quizbot/bot/config/app.env'
tries "write the env file" 'echo x >>/var/www/quizbot/bot/config/app.env'
tries "write its own binary" 'echo x >>/usr/local/bin/duelhub'
tries "write /etc" 'echo x >/etc/probe'
tries "see init" 'cat /proc/1/status'
tries "look into /root" 'ls /root'
tries "make a namespace" 'unshare --user true'
tries "see disks" 'ls /dev/*da* /dev/kmsg /dev/mem | grep .'
tries "raise its priority" 'renice -n -5 $$'
tries "connect on loopback" ': </dev/tcp/127.0.0.1/80'
END
    inside_sh 'chmod 755 /usr/local/bin/probe
        sed -e "s|^ExecStart=.*|ExecStart=/usr/local/bin/probe|" -e "s/^Type=.*/Type=oneshot/" \
            -e "/^Restart/d" -e "/^WatchdogSec/d" "/etc/systemd/system/$1.service" >/run/systemd/system/probe.service
        systemctl daemon-reload' "$UNIT"
    holds "a probe runs in the same sandbox" inside systemctl start probe
    out=$(inside journalctl --no-pager -o cat _SYSTEMD_UNIT=probe.service)
    is "the sandbox lets it do what it needs, and nothing else" "$(expected_of_probe)" "$out"
    inside_sh 'rm /run/systemd/system/probe.service && systemctl daemon-reload'
}

expected_of_probe() {
    printf 'can %s\n' "write its state" "read the env file"
    printf 'cannot %s\n' "write the env file" "write its own binary" "write /etc" "see init" "look into /root" \
        "make a namespace" "see disks" "raise its priority"
    printf 'can %s\n' "connect on loopback"
}

notify_is_set_up() {
    is "Type and NotifyAccess" "notify main" "$(property Type) $(property NotifyAccess)"
    is "the watchdog is on" "30s" "$(property WatchdogUSec)"
    is "Restart" always "$(property Restart)"
}

logs_are_json_and_tell_no_ticket() {
    step "the log"
    local since answer id; since=$(mark)
    answer=$(inside curl -sS -i --cacert "$CA" "https://$DOMAIN/api/duel/ws-ticket?duel_id=5" | tr -d '\r')
    id=$(sed -n 's/^[Xx]-[Rr]equest-[Ii]d: //p' <<<"$answer")
    has "an answer carries a request_id" "$id" '^[0-9a-f]{16}$'
    is "its JSON the same one" "$id" "$(tail -n 1 <<<"$answer" | inside jq -r .request_id)"
    holds "a log line of the hub too" within 5 logged "$since" "$id"
    holds "and nginx's access log begins its own with it" within 5 \
        inside jq -es --arg id "$id" 'any(.[]; .request_id | startswith($id))' /var/log/nginx/quizbot-access.log
    holds "every line of the hub is a JSON object with timestamp, level and message" well_formed "$since"
    tells_no_ticket "$since"
}

# logged MARK REQUEST_ID
logged() { hub_log "$1" | inside jq -es --arg id "$2" 'any(.[]; .request_id == $id)'; }

well_formed() {
    hub_log "$1" | inside jq -es 'length > 0 and all(.[]; has("timestamp") and has("level") and has("message"))'
}

# A ticket in the query string reaches no log, whether it is accepted, used again, or arrives while the hub is away.
tells_no_ticket() {
    local ticket logs; ticket=$(ticket)
    is "a ticket opens a socket" 101 "$(upgrade "/ws?ticket=$ticket" --max-time 1 -o /dev/null -w '%{http_code}')"
    upgrade_status "/ws?ticket=$ticket" >/dev/null
    inside systemctl stop "$UNIT"
    is "while the hub is away nginx answers 502" 502 "$(upgrade_status "/ws?ticket=$ticket")"
    inside systemctl start "$UNIT"
    logs=$(journal "$1"; inside_sh 'cat /var/log/nginx/*.log')
    has "the log says who connected" "$logs" '"connected".*"user_id":1'
    lacks "the ticket is in none of the logs" "$logs" "${ticket: -40}"
}

# LimitNOFILE=1048576 is more than some machines let a container have: without CAP_SYS_RESOURCE the hard limit of the
# container's init is the most there is. systemd then sets that, without a word, still shows the unit's number, and starts
# the unit all the same; it is the hub that tells. So both outcomes are right, if the log says the truth. That the unit's
# number arrives is shown by a lower one.
# $3, or $1 if it is less, or $2 if it is more.
clamp() { echo $(($3 < $1 ? $1 : $3 > $2 ? $2 : $3)); }

descriptor_limit_reaches_the_hub() {
    step "descriptors"
    local asked limit most; asked=$(property LimitNOFILE) limit=$(descriptors "$(main_pid)") most=$(descriptors 1)
    is "the unit asks for a million" 1048576 "$asked"
    if [ "$limit" = "$asked" ]; then
        pass "the process has them"
        lacks "and nothing is lowered" "$(hub_log)" "LimitNOFILE"
    else
        is "the process has the most that this machine gives a container" "$most" "$limit"
        # Those of backends and probes that have proved nothing (limits.rs: CONTROL_NEWCOMERS, ADMIN_CONNECTIONS).
        local strangers=$(($(clamp 32 512 $((limit / 64))) + $(clamp 16 256 $((limit / 128)))))
        has "and the log tells it, with what fits under it" "$(hub_log | grep LimitNOFILE | tail -n 1)" \
            "\"level\":\"WARN\".*\"descriptors\":$limit,.*\"connections_max\":$((limit - strangers - 112 - 96 - 2048))"
    fi
    lower_limit_is_told
}

# descriptors PID: the hard limit.
descriptors() { inside awk '/^Max open files/ { print $5 }' "/proc/$1/limits"; }

lower_limit_is_told() {
    local since; since=$(mark)
    drop_in <<<$'[Service]\nLimitNOFILE=4096'
    holds "starts with LimitNOFILE=4096" restart
    is "the process has it" 4096 "$(descriptors "$(main_pid)")"
    has "the log tells it" "$(hub_log "$since")" '"descriptors":4096,"wanted":100000,"connections_max":2844,"pending_max":948'
    no_drop_in
    restart
}
