# deploy/game, as section 12 of the guide says: the unit and the env file beside a process that keeps its own.

BESIDE=duelhub

beside_a_game_it_starts() {
    step "beside a game"
    local unit=/etc/systemd/system/$BESIDE.service file=$ROOT/etc/duelhub/hub.env
    # The store is the same directory, and only one may have it.
    inside systemctl stop "$UNIT"
    inside install -d -m 755 /etc/duelhub
    install -m 644 "$DEPLOY/game/duelhub.service" "$ROOT$unit"
    install -m 640 "$DEPLOY/game/hub.env.example" "$file" && inside chown root:www-data /etc/duelhub/hub.env
    inside systemctl daemon-reload
    is "systemd-analyze verify has nothing to say" "" "$(inside systemd-analyze verify "$unit" 2>&1)"
    holds "systemd-analyze security: exposure at most 1.5" inside systemd-analyze security --threshold=15 "$BESIDE"
    fails "the example, not filled in, is refused" inside systemctl start "$BESIDE"
    sed -i "s/^WEBSOCKET_TICKET_SECRET=$/&$(openssl rand -hex 32)/; s/^CONTROL_TOKEN=$/&$(openssl rand -hex 32)/" "$file"
    holds "filled in, it starts and is ready" inside_sh \
        'systemctl enable --now "$1" && curl -fsS http://127.0.0.1:8091/readyz && : </dev/tcp/127.0.0.1/8092' "$BESIDE"
    fails "the port of the old process is free" port_is_open 8090
    unit_reads_another_env_file
    unit_names_a_path_that_is_not_there
    inside systemctl disable --now "$BESIDE" >/dev/null 2>&1
    inside systemctl start "$UNIT"
}

# finds_of_the_unit FAULT REGEX: what the check says of the unit alone; nginx is not set up for this one.
finds_of_the_unit() {
    local out
    out=$(inside duelhub check --url "wss://$DOMAIN/ws" --api "https://$DOMAIN/api" --ca-file "$CA" \
        --env-file /etc/duelhub/hub.env --unit "$BESIDE" 2>&1)
    has "$1: is named" "$out" "^FAIL  $BESIDE would restart after a crash: $2"
}

beside_drop_in() {
    inside mkdir -p "/run/systemd/system/$BESIDE.service.d"
    inside tee "/run/systemd/system/$BESIDE.service.d/test.conf" >/dev/null && inside systemctl daemon-reload
    # It fails where the fault is one that no start survives.
    inside systemctl restart "$BESIDE" >/dev/null 2>&1 || true
}

unit_reads_another_env_file() {
    inside cp -p /etc/duelhub/hub.env /etc/duelhub/other.env
    beside_drop_in <<<$'[Service]\nExecStart=\nExecStart=/usr/local/bin/duelhub --env-file /etc/duelhub/other.env'
    finds_of_the_unit "another env file" "the unit reads /etc/duelhub/other.env"
}

# The seed of the game lies in another directory than the one that its old guide named.
unit_names_a_path_that_is_not_there() {
    beside_drop_in <<<$'[Service]\nWorkingDirectory=/var/www/quizbot/none'
    finds_of_the_unit "a path that is not there" "the unit is [a-z]*: status 200, a path in it is not there"
    inside rm -rf "/run/systemd/system/$BESIDE.service.d" && inside systemctl daemon-reload
    inside systemctl stop "$BESIDE"
}
