//! The table of all variables: name, default, meaning. The command line, the environment, the env file and the README's table
//! follow it.

/// One variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// The name in the environment and the env file.
    pub name: &'static str,
    /// The text used when it is unset or empty. `None`: there is no default.
    pub default: Option<&'static str>,
    /// The meaning, with the unit.
    pub help: &'static str,
}

impl Variable {
    /// Returns the name as a flag, without the leading dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.to_lowercase().replace('_', "-")
    }
}

const fn with(name: &'static str, default: &'static str, help: &'static str) -> Variable {
    Variable { name, default: Some(default), help }
}

const fn none(name: &'static str, help: &'static str) -> Variable {
    Variable { name, default: None, help }
}

/// All variables, in the order of the documentation.
pub const VARIABLES: &[Variable] = &[
    with(
        "APP_ENV",
        "development",
        "production makes every safety requirement hard; development serves the demo page",
    ),
    with("WEBSOCKET_HOST", "127.0.0.1", "address of the data plane: WebSocket and HTTP ticket API"),
    with("WEBSOCKET_PORT", "8090", "its port; 0 takes a free one"),
    with(
        "WEBSOCKET_SYNC_INTERVAL",
        "1",
        "seconds between repair sweeps; fractions allowed, at least 0.5",
    ),
    none(
        "WEBSOCKET_TICKET_SECRET",
        "HMAC key of tickets; production: required, at least 32 bytes, not the bot token",
    ),
    none(
        "WEBSOCKET_TICKET_SECRET_PREVIOUS",
        "the key before, still accepted while the secret is being rotated",
    ),
    with("WEBSOCKET_TICKET_TTL_SECONDS", "300", "life of a ticket"),
    with("WEBSOCKET_RESUME_TTL_SECONDS", "3600", "life of a resume ticket"),
    with("WEBSOCKET_CLIENT_TIMEOUT_SECONDS", "70", "a connection silent for longer is closed"),
    with("WEBSOCKET_MAX_MESSAGE_BYTES", "2048", "largest message accepted from a client"),
    with(
        "WEBSOCKET_MAX_CONNECTIONS",
        "100000",
        "connections in all; lowered at start to what the descriptor limit allows",
    ),
    with(
        "WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS",
        "512",
        "connections of one client address (IPv6: of one /64)",
    ),
    with(
        "WEBSOCKET_MAX_CONNECTIONS_PER_USER",
        "3",
        "connections of one user in one duel; past it the oldest is replaced",
    ),
    with(
        "WEBSOCKET_MAX_HANDSHAKES_PER_SECOND",
        "5000",
        "opening handshakes a second, with a burst of as many; as many requests for tickets",
    ),
    with(
        "WEBSOCKET_MAX_HANDSHAKES_PER_USER_PER_MINUTE",
        "60",
        "opening handshakes of one user at one address a minute, with a burst of as many; as many requests for tickets",
    ),
    with(
        "WEBSOCKET_MAX_INVALID_PER_ADDRESS_PER_MINUTE",
        "300",
        "handshakes without a valid ticket of one address a minute; as many requests for tickets without valid initData",
    ),
    with(
        "WEBSOCKET_MAX_MESSAGES_PER_MINUTE",
        "600",
        "messages of one client a minute, with a burst of as many; past it the connection is closed",
    ),
    with(
        "WEBSOCKET_MAX_PENDING_HANDSHAKES",
        "2048",
        "sockets that have not yet shown a valid ticket",
    ),
    with("WEBSOCKET_HANDSHAKE_TIMEOUT_SECONDS", "5", "how long such a socket may take"),
    with(
        "WEBSOCKET_DRAIN_SECONDS",
        "5",
        "with ENGINE=redis: at shutdown, and when an epoch ends, clients are closed spread over this time",
    ),
    with(
        "TRUSTED_PROXIES",
        "127.0.0.1,::1",
        "addresses or networks (10.0.0.0/8) whose X-Forwarded-For is believed",
    ),
    none("WEBAPP_URL", "allowed browser origins, comma-separated; production: required"),
    with("INIT_DATA_TTL_SECONDS", "86400", "oldest Telegram auth_date that the ticket API accepts"),
    none(
        "TELEGRAM_BOT_TOKEN",
        "verifies X-Telegram-Init-Data; without it the ticket API answers 503",
    ),
    with(
        "DEV_AUTH_ENABLED",
        "false",
        "development only: X-Dev-Telegram-User-Id stands in for initData",
    ),
    none("DEV_AUTH_USER_ID", "development only: the Telegram user when that header is missing"),
    with("CONTROL_HOST", "127.0.0.1", "address of the control plane (gRPC)"),
    with("CONTROL_PORT", "50051", "its port; 0 takes a free one"),
    none(
        "CONTROL_TOKEN",
        "bearer token of the control plane, at least 16 bytes; beyond loopback this or mutual TLS is required",
    ),
    none("CONTROL_TLS_CERT", "PEM file: certificate chain of the control plane"),
    none("CONTROL_TLS_KEY", "PEM file: its private key"),
    none(
        "CONTROL_TLS_CLIENT_CA",
        "PEM file: authority that must have signed a caller's certificate (mutual TLS)",
    ),
    with(
        "CONTROL_MAX_CONNECTIONS",
        "96",
        "connections of backends, at most 4096; one that has made no call yet does not count",
    ),
    with("CONTROL_MAX_PUSHES_IN_FLIGHT", "1024", "pushes being stored at a time, at most 8192"),
    with("CONTROL_MAX_PAYLOAD_BYTES", "65536", "largest payload_json, at most 262144"),
    with("CONTROL_MAX_WATCHERS", "64", "streams of WatchDuels at a time"),
    with(
        "ADMIN_HOST",
        "127.0.0.1",
        "address of /healthz, /readyz and /metrics; production: loopback only",
    ),
    with("ADMIN_PORT", "8091", "its port; 0 takes a free one"),
    with(
        "ENGINE",
        "embedded",
        "what stores and orders events: embedded (survives restarts, in DATA_DIR), redis (several nodes), memory (for trying out)",
    ),
    with("DATA_DIR", "data", "directory of the embedded engine's store; made if it is not there"),
    with(
        "DURABILITY",
        "fsync",
        "when a push is acknowledged: fsync (the disk has it), os (the kernel has it, lost at a power loss)",
    ),
    none(
        "REDIS_URL",
        "with ENGINE=redis: redis://[user:password@]host[:port][/database], redis+sentinel://host[:port],…/master[/database], redis+cluster://host[:port],…, each with rediss for TLS; or redis+unix:///path",
    ),
    with("REDIS_PREFIX", "duelhub", "what the names of all keys and channels in Redis begin with"),
    with(
        "REDIS_WAIT_REPLICAS",
        "0",
        "how many replicas must have a push before it is acknowledged; what players see does not wait",
    ),
    with("ENGINE_MAX_DUELS", "200000", "duels held at a time"),
    with("ENGINE_MAX_LOG_EVENTS", "1000", "events kept per duel"),
    with("ENGINE_MAX_LOG_BYTES", "1048576", "bytes of events kept per duel, at least 1048576"),
    with(
        "ENGINE_MAX_REMEMBERED_TICKETS",
        "2000000",
        "used and revoked tickets remembered until they expire",
    ),
    with(
        "ENGINE_CLOSED_RETENTION_SECONDS",
        "3600",
        "how long a closed duel is kept for clients that come back",
    ),
    with(
        "ENGINE_IDLE_RETENTION_SECONDS",
        "86400",
        "how long a duel is kept without events and connections",
    ),
    with(
        "PRESENCE_GRACE_SECONDS",
        "3",
        "a user gone for less does not count as offline; 0 to 60, fractions allowed",
    ),
    with("LOG_LEVEL", "info", "error, warn, info, debug or trace"),
    with("LOG_FORMAT", "auto", "json or text; auto: json in production, text in development"),
];
