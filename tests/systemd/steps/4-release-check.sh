# `duelhub check`: green when all is well, red with the fault's name when not.

release_check_passes() {
    step "release check"
    local since out status; since=$(mark)
    out=$(release_check --kill); status=$?
    is "exit 0" 0 "$status"
    lacks "no line fails" "$out" '^FAIL'
    local line
    for line in "the control plane answers" "the ticket API answers participants" "the ticket API refuses a stranger: 403" \
        "wss://$DOMAIN/ws opens for player 2" "wss://$DOMAIN/ws/ opens for player 2" "another origin is refused: 403" \
        "a push reaches the second player: 20 pushes" "$UNIT would restart after a crash" \
        "$UNIT is back after SIGKILL: after [0-9.]+s, restart number [1-9]"; do
        has "ok: $line" "$out" "^ok    $line"
    done
    has "the last line says that everything works" "$out" '^everything works$'
    holds "its gRPC calls are logged with a request_id" within 5 calls_are_logged "$since"
    lacks "none of it is an error to the hub" "$(hub_log "$since")" '"level":"ERROR"'
}

# OpenDuel, GetNode, CloseDuel. Pushes that went well are logged at debug only, and this runs at info.
calls_are_logged() {
    hub_log "$1" | inside jq -es '[.[] | select(.message == "call")] | length >= 3 and
        all(.[]; .request_id // .span.request_id | test("^[0-9a-f]{16}$"))'
}

# finds FAULT REGEX [OPTIONS...]: the check fails, and a line of it, or the advice under it, names the fault.
finds() {
    local fault=$1 regex=$2 out status; shift 2
    out=$(release_check "$@"); status=$?
    is "$fault: exit 1" 1 "$status"
    has "$fault: is named" "$(grep -A 1 '^FAIL' <<<"$out")" "$regex"
    has "$fault: is counted" "$out" '^[1-9][0-9]* of the checks failed$'
}

release_check_finds_faults() {
    step "release check against faults"
    nginx_is_down
    location_is_missing
    origin_is_not_the_hubs
    origin_is_not_the_webapps
    bot_token_is_another
    certificate_is_not_trusted
    unit_does_not_restart
    hub_is_down
    has "with all of it mended, everything works again" "$(release_check)" '^everything works$'
}

nginx_is_down() {
    inside systemctl stop nginx
    finds "nginx stopped" "FAIL  wss://$DOMAIN/ws opens .*443: Connection refused"
    inside systemctl start nginx
}

# A restart, not a reload: it returns when the new configuration is the only one that answers.
location_is_missing() {
    local conf=$ROOT/etc/nginx/conf.d/quizbot.conf
    cp "$conf" "$WORK/quizbot.conf"
    sed -i '/location = \/ws {/,/^    }/d' "$conf"
    inside systemctl restart nginx
    finds "no location = /ws" "FAIL  wss://$DOMAIN/ws opens .*HTTP 301 .*instead of 101"
    finds "no location = /ws" "look at: nginx's location = /ws"
    cp "$WORK/quizbot.conf" "$conf"
    inside systemctl restart nginx
}

# The env file was changed, and the hub not restarted since.
origin_is_not_the_hubs() {
    drop_in <<<$'[Service]\nEnvironment=WEBAPP_URL=https://elsewhere.example'
    restart
    finds "the hub has another WEBAPP_URL" "FAIL  wss://$DOMAIN/ws opens .*HTTP 403"
    finds "the hub has another WEBAPP_URL" "look at: .*WEBAPP_URL in the env file"
    no_drop_in
    restart
}

# The env file itself is wrong, and the hub runs with it: every browser is refused. What the check offers as Origin must
# therefore not come from that file alone.
origin_is_not_the_webapps() {
    set_env WEBAPP_URL https://your-domain.com
    restart
    finds "WEBAPP_URL is not where the WebApp is" "WEBAPP_URL"
    set_env WEBAPP_URL "https://$DOMAIN"
    restart
}

bot_token_is_another() {
    local token; token=$(get_env TELEGRAM_BOT_TOKEN)
    set_env TELEGRAM_BOT_TOKEN 7000000002:another
    finds "another bot token" "FAIL  the ticket API answers participants: HTTP 401"
    finds "another bot token" "look at: .*TELEGRAM_BOT_TOKEN in the env file"
    set_env TELEGRAM_BOT_TOKEN "$token"
}

certificate_is_not_trusted() {
    local out status
    out=$(inside duelhub check --url "wss://$DOMAIN/ws" --api "https://$DOMAIN/api" --env-file "$ENV_FILE"); status=$?
    is "unknown authority: exit 1" 1 "$status"
    has "unknown authority: is named" "$out" "^FAIL .*TLS with $DOMAIN: .*certificate"
}

unit_does_not_restart() {
    drop_in <<<$'[Service]\nRestart=no'
    finds "Restart=no" "FAIL  $UNIT would restart after a crash: Restart is not always" --kill
    is "Restart=no: and it was not killed to see" active "$(property ActiveState)"
    no_drop_in
}

hub_is_down() {
    inside systemctl stop "$UNIT"
    finds "the hub is stopped" "FAIL  the control plane answers: "
    finds "the hub is stopped" "FAIL  $UNIT would restart after a crash: the unit is inactive"
    inside systemctl start "$UNIT"
}
