# The hub as systemd, its clients and its operator see it.

DROP_IN=/run/systemd/system/$UNIT.service.d

property() { inside systemctl show --value --property="$1" "$UNIT"; }

# property_is NAME VALUE: for `within` and `throughout`.
property_is() { [ "$(property "$1")" = "$2" ]; }

main_pid() { property MainPID; }

# Active, and not the process it was.
is_back_instead_of() {
    local pid
    property_is ActiveState active && pid=$(main_pid) && [ "$pid" != 0 ] && [ "$pid" != "$1" ]
}

# Everything the unit has logged since a mark; without one, all of it.
journal() { inside journalctl --no-pager -o cat ${1:+--cursor="$1"} --unit="$UNIT"; }

# What the hub itself has logged, without systemd's lines about it.
hub_log() { inside journalctl --no-pager -o cat ${1:+--cursor="$1"} "_SYSTEMD_UNIT=$UNIT.service"; }

# A mark in the journal, to read on from. A line of our own, which no filter above lets through: --after-cursor of this
# systemd loses the first line that matches when the cursor's own line does not.
mark() {
    inside_sh 'echo mark | systemd-cat --identifier=mark && journalctl --sync
        journalctl --no-pager --identifier=mark -n 1 --show-cursor' | sed -n 's/^-- cursor: //p'
}

# drop_in <<END: settings on top of the unit, until no_drop_in. They hold from the next start.
drop_in() {
    inside mkdir -p "$DROP_IN" && inside tee "$DROP_IN/test.conf" >/dev/null && inside systemctl daemon-reload
}

no_drop_in() { inside rm -rf "$DROP_IN" && inside systemctl daemon-reload; }

restart() { inside systemctl reset-failed "$UNIT" && inside systemctl restart "$UNIT"; }

# set_env NAME VALUE: in the env file, in place, so that owner and mode stay.
set_env() { sed -i "s|^$1=.*|$1=$2|" "$ROOT$ENV_FILE" && own_env_file root:www-data 640; }

get_env() { sed -n "s/^$1=//p" "$ROOT$ENV_FILE"; }

# By the container's own names for users.
own_env_file() { chroot "$ROOT" chown "$1" "$ENV_FILE" && chmod "$2" "$ROOT$ENV_FILE"; }

# A ticket for player 1 of duel 5.
ticket() { inside duelhub ticket issue --duel 5 --user 1 --env-file "$ENV_FILE" 2>/dev/null; }

# upgrade PATH_AND_QUERY CURL_OPTIONS...: asks for a WebSocket as the WebApp's browser does.
upgrade() {
    local target=$1; shift
    inside curl --silent --no-buffer --http1.1 --cacert "$CA" "$@" "https://$DOMAIN$target" \
        -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H "Origin: https://$DOMAIN" \
        -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='
}

upgrade_status() { upgrade "$1" --max-time 10 -o /dev/null -w '%{http_code}'; }

port_is_open() { inside_sh ': </dev/tcp/127.0.0.1/$1' "$1"; }

# The release check, as the guide has it.
release_check() {
    inside duelhub check --url "wss://$DOMAIN/ws" --api "https://$DOMAIN/api" --ca-file "$CA" \
        --env-file "$ENV_FILE" --unit "$UNIT" "$@" 2>&1
}
