# Sections 1 to 5 of the guide.

install_hub() {
    step "installing as the guide says"
    install -m 755 "$BINARY" "$ROOT/usr/local/bin/duelhub" || die "the binary is installed"
    install -m 644 "$DEPLOY/$UNIT.service" "$ROOT/etc/systemd/system/" || die "the unit is installed"
    mkdir -p "$ROOT${ENV_FILE%/*}" && cp "$DEPLOY/app.env.example" "$ROOT$ENV_FILE" || die "the env file is installed"
    own_env_file root:www-data 640
}

install_nginx() {
    make_certificate || die "a certificate can be made"
    sed "s/your-domain\.com/$DOMAIN/g" "$DEPLOY/nginx.conf" >"$ROOT/etc/nginx/conf.d/quizbot.conf"
}

# An authority of our own stands in for Let's Encrypt.
make_certificate() {
    local live=$ROOT/etc/letsencrypt/live/$DOMAIN key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    mkdir -p "$live"
    openssl req -x509 "${key[@]}" -days 2 -subj "/CN=duelhub test CA" \
        -keyout "$WORK/ca.key" -out "$ROOT$CA" 2>/dev/null &&
    openssl req "${key[@]}" -subj "/CN=$DOMAIN" -keyout "$live/privkey.pem" -out "$WORK/request.pem" 2>/dev/null &&
    printf 'subjectAltName=DNS:%s\nbasicConstraints=CA:FALSE\n' "$DOMAIN" >"$WORK/extensions" &&
    openssl x509 -req -in "$WORK/request.pem" -CA "$ROOT$CA" -CAkey "$WORK/ca.key" -CAcreateserial \
        -days 2 -extfile "$WORK/extensions" -out "$live/fullchain.pem" 2>/dev/null
}

unit_is_well_formed() {
    step "the unit"
    local file=/etc/systemd/system/$UNIT.service
    is "systemd-analyze verify has nothing to say" "" "$(inside systemd-analyze verify "$file" 2>&1)"
    # Or the line above would prove nothing.
    inside_sh 'mkdir -p /tmp/v && sed s/ProtectSystem/ProtectSytem/ "$1" >/tmp/v/misspelt.service' "$file"
    has "it would notice a misspelt directive" "$(inside systemd-analyze verify /tmp/v/misspelt.service 2>&1)" ProtectSytem
    # 1.1 of 10 when this was written. It grows when a line of the sandbox is lost.
    holds "systemd-analyze security: exposure at most 1.5" inside systemd-analyze security --threshold=15 "$UNIT"
    holds "nginx accepts its configuration" inside nginx -t
    holds "nginx runs" inside systemctl is-active nginx
}

# A configuration that is wrong is told, and not tried again and again.
example_is_refused() {
    step "the example, not filled in"
    is "four values wait to be filled in" \
        "CONTROL_TOKEN TELEGRAM_BOT_TOKEN WEBAPP_URL WEBSOCKET_TICKET_SECRET" \
        "$(sed -n 's/^\([A-Z_]*\)=$/\1/p' "$ROOT$ENV_FILE" | sort | paste -sd ' ')"
    fails "systemctl enable --now fails" inside systemctl enable --now "$UNIT"
    was_refused
    local log; log=$(journal)
    has "the log names WEBSOCKET_TICKET_SECRET" "$log" 'WEBSOCKET_TICKET_SECRET is required'
    has "the log names WEBAPP_URL" "$log" 'WEBAPP_URL is required'
    # Longer than RestartSec.
    holds "it is not started again" throughout 3 property_is SubState failed
    is "and has not been" 0 "$(property NRestarts)"
}

was_refused() {
    is "exit status 64" 64 "$(property ExecMainStatus)"
    is "the unit stays failed" "failed failed" "$(property ActiveState) $(property SubState)"
}

filled_in_it_starts() {
    step "filled in"
    set_env WEBSOCKET_TICKET_SECRET "$(openssl rand -hex 32)"
    set_env WEBAPP_URL "https://$DOMAIN"
    set_env TELEGRAM_BOT_TOKEN "7000000001:$(openssl rand -hex 17)"
    set_env CONTROL_TOKEN "$(openssl rand -hex 32)"
    unreadable_is_refused
    # In one breath: what "started" promises must be true at that moment, not soon after.
    holds "started means that the listeners are open, and ready" inside_sh '
        systemctl start "$1" && for port in 8090 50051 8091; do : </dev/tcp/127.0.0.1/$port || exit; done &&
        curl -fsS http://127.0.0.1:8091/readyz' "$UNIT"
    is "the unit is active" "active running" "$(property ActiveState) $(property SubState)"
    for path in /ws /ws/; do
        is "$path answers 101 through nginx and TLS, as the guide tries it" 101 "$(upgrade_status "$path")"
    done
}

unreadable_is_refused() {
    own_env_file root:root 600
    fails "an env file that www-data cannot read is refused" inside systemctl start "$UNIT"
    was_refused
    has "the log says so" "$(journal)" 'env-file .*cannot be read'
    own_env_file root:www-data 640
}
