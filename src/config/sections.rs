//! Reads the variables of each section, and checks what must hold between them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::{
    AdminConfig, CONTROL_TOKEN_BYTES_MIN, Config, ConsoleAccess, ControlConfig, ControlPatience,
    ControlTls, DevAuth, Durability, EdgeConfig, EngineConfig, EngineKind, HubConfig, RedisConfig,
    Secret, StoreConfig, TICKET_SECRET_BYTES_MIN, TelegramConfig, TicketConfig,
};
use crate::limits;

/// Half of the engine's queue. The rest is for tickets, declarations, and closing duels.
const PUSHES_IN_FLIGHT_MAX: u32 = 8192;
const _: () = assert!(PUSHES_IN_FLIGHT_MAX as usize <= limits::ENGINE_QUEUE_MAX / 2);

pub(super) fn read_tickets(
    reader: &mut Reader<'_>,
    production: bool,
    warnings: &mut Vec<String>,
) -> TicketConfig {
    const SECRET: &str = "WEBSOCKET_TICKET_SECRET";
    const PREVIOUS: &str = "WEBSOCKET_TICKET_SECRET_PREVIOUS";
    let bot_token = reader.optional("TELEGRAM_BOT_TOKEN");
    let secret = reader.optional(SECRET);
    let secret_previous = reader.optional(PREVIOUS);
    for (name, secret) in [(SECRET, &secret), (PREVIOUS, &secret_previous)] {
        let Some(secret) = secret else { continue };
        if bot_token.as_ref() == Some(secret) {
            reader.problem(name, "must not be the TELEGRAM_BOT_TOKEN: use a secret of its own");
        }
        if production && secret.len() < TICKET_SECRET_BYTES_MIN {
            let text = format!("must have at least {TICKET_SECRET_BYTES_MIN} bytes in production");
            reader.problem(name, text);
        }
    }
    if secret.is_none() {
        if production {
            reader.problem(SECRET, "is required in production: openssl rand -hex 32 makes one");
        }
        warnings.push("WEBSOCKET_TICKET_SECRET is unset: a random one holds until restart".into());
    }
    TicketConfig {
        configured: secret.is_some(),
        secret: secret.map_or_else(Secret::random, Secret::new),
        secret_previous: secret_previous.map(Secret::new),
        ttl: reader.seconds("WEBSOCKET_TICKET_TTL_SECONDS", 1, 86_400),
        resume_ttl: reader.seconds("WEBSOCKET_RESUME_TTL_SECONDS", 1, 86_400),
    }
}

/// The game's own API takes a lower `INIT_DATA_TTL_SECONDS` as this.
const INIT_DATA_TTL_LOW: Duration = Duration::from_secs(3600);

pub(super) fn read_telegram(
    reader: &mut Reader<'_>,
    production: bool,
    warnings: &mut Vec<String>,
) -> TelegramConfig {
    let enabled = reader.flag("DEV_AUTH_ENABLED");
    if enabled && production {
        reader.problem("DEV_AUTH_ENABLED", "must not be true in production");
    }
    let user = reader.optional("DEV_AUTH_USER_ID").and_then(|text| {
        let user = text.parse().ok().filter(|user| (1..=crate::id::ID_MAX).contains(user));
        if user.is_none() {
            reader.problem("DEV_AUTH_USER_ID", "must be a number from 1 to 9007199254740991");
        }
        user
    });
    let init_data_ttl = reader.seconds("INIT_DATA_TTL_SECONDS", 1, 86_400 * 30);
    if init_data_ttl < INIT_DATA_TTL_LOW {
        let seconds = init_data_ttl.as_secs();
        warnings.push(format!(
            "INIT_DATA_TTL_SECONDS is {seconds}: a page that was opened longer ago gets no ticket for its next duel. Set 86400, or let the backend issue the tickets (IssueTicket)"
        ));
    }
    TelegramConfig {
        bot_token: reader.optional("TELEGRAM_BOT_TOKEN").map(Secret::new),
        init_data_ttl,
        dev_auth: enabled.then_some(DevAuth { user }),
    }
}

pub(super) fn read_engine_kind(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> EngineKind {
    let name = reader.value("ENGINE", |text| match text {
        "embedded" | "memory" | "redis" => Ok(text.to_owned()),
        _ => Err("must be embedded, memory or redis".to_owned()),
    });
    let redis = read_redis(reader, name == "redis");
    let data_dir = reader.value("DATA_DIR", |text| Ok(PathBuf::from(text)));
    let durability = reader.value("DURABILITY", |text| match text {
        "fsync" => Ok(Durability::Fsync),
        "os" => Ok(Durability::Os),
        _ => Err("must be fsync or os".to_owned()),
    });
    if name == "memory" {
        warnings
            .push("ENGINE=memory: every event and every used ticket is lost at a restart".into());
        return EngineKind::Memory;
    }
    if let Some(redis) = redis {
        return EngineKind::Redis(redis);
    }
    if durability == Durability::Os {
        let text =
            "DURABILITY=os: an acknowledged push survives a crash of duelhub, not a power loss";
        warnings.push(text.into());
    }
    EngineKind::Embedded(StoreConfig { data_dir, durability })
}

fn read_redis(reader: &mut Reader<'_>, wanted: bool) -> Option<RedisConfig> {
    let prefix = reader.value("REDIS_PREFIX", |text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        match text.len() <= 64 && text.chars().all(plain) {
            true => Ok(text.to_owned()),
            false => Err("must be at most 64 characters out of A-Z a-z 0-9 _ - . :".to_owned()),
        }
    });
    let wait_replicas =
        u32::try_from(reader.number("REDIS_WAIT_REPLICAS", 0, 100)).unwrap_or(u32::MAX);
    let url = reader.optional("REDIS_URL");
    if !wanted {
        return None;
    }
    let Some(url) = url else {
        reader.problem("REDIS_URL", "is required with ENGINE=redis");
        return None;
    };
    let (scheme, _) = url.split_once("://").unwrap_or_default();
    let (server, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
    if !matches!(
        (server, kind),
        ("redis" | "rediss", "" | "sentinel" | "cluster") | ("redis", "unix")
    ) {
        reader.problem(
            "REDIS_URL",
            "must begin with redis://, redis+sentinel:// or redis+cluster://, or rediss for TLS, or redis+unix://",
        );
    }
    Some(RedisConfig { url: Secret::new(url), prefix, wait_replicas })
}

pub(super) fn read_engine(
    reader: &mut Reader<'_>,
    resume_ttl: std::time::Duration,
) -> EngineConfig {
    // The log must hold the largest push and the end of the duel, or it would drop what was just stored.
    let log_bytes_min = 4 * u32::try_from(limits::PUSH_BYTES_MAX).unwrap_or(u32::MAX);
    EngineConfig {
        duels_max: reader.count("ENGINE_MAX_DUELS", 1, 100_000_000),
        log_events_max: reader.count("ENGINE_MAX_LOG_EVENTS", 2, 1_000_000),
        log_bytes_max: reader.count("ENGINE_MAX_LOG_BYTES", log_bytes_min, 1 << 30),
        tickets_max: reader.count("ENGINE_MAX_REMEMBERED_TICKETS", 1000, 1_000_000_000),
        resume_ttl,
        closed_retention: reader.seconds("ENGINE_CLOSED_RETENTION_SECONDS", 1, 86_400 * 30),
        idle_retention: reader.seconds("ENGINE_IDLE_RETENTION_SECONDS", 10, 86_400 * 365),
    }
}

/// Reads the hub's section. `handshakes_per_second` is that of [`EdgeConfig`].
pub(super) fn read_hub(
    reader: &mut Reader<'_>,
    several_nodes: bool,
    handshakes_per_second: u32,
) -> HubConfig {
    let drain = reader.fraction("WEBSOCKET_DRAIN_SECONDS", 0.0, 300.0);
    let (drain, restart_gap) = match several_nodes {
        true => (drain, Duration::ZERO),
        false => (Duration::ZERO, limits::RESTART_GAP),
    };
    HubConfig {
        sync_interval: reader.fraction("WEBSOCKET_SYNC_INTERVAL", 0.5, 60.0),
        connections_per_user_max: reader.count("WEBSOCKET_MAX_CONNECTIONS_PER_USER", 1, 100),
        presence_grace: reader.fraction("PRESENCE_GRACE_SECONDS", 0.0, 60.0),
        watchers_max: reader.count("CONTROL_MAX_WATCHERS", 1, 10_000),
        drain,
        restart_gap,
        // The other half is for everybody else: newcomers, and clients that come back when they please.
        reconnects_per_second: (handshakes_per_second / 2).max(1),
    }
}

pub(super) fn read_edge(reader: &mut Reader<'_>, production: bool) -> EdgeConfig {
    let origins = match reader.optional("WEBAPP_URL") {
        Some(text) => text.split(',').filter_map(|url| read_origin(reader, url.trim())).collect(),
        None => Vec::new(),
    };
    if production && reader.optional("WEBAPP_URL").is_none() {
        reader.problem("WEBAPP_URL", "is required in production: the origin of the WebApp");
    }
    let trusted_proxies = reader.value("TRUSTED_PROXIES", |text| {
        let addresses = text.split(',').map(|ip| ip.trim().parse());
        let wrong = || "must be IP addresses, or networks such as 10.0.0.0/8".to_owned();
        addresses.collect::<Result<_, _>>().map_err(|_| wrong())
    });
    EdgeConfig {
        address: reader.address("WEBSOCKET_HOST", "WEBSOCKET_PORT").into(),
        origins,
        trusted_proxies,
        client_timeout: reader.seconds("WEBSOCKET_CLIENT_TIMEOUT_SECONDS", 1, 86_400),
        message_bytes_max: reader.count("WEBSOCKET_MAX_MESSAGE_BYTES", 64, 1 << 20),
        connections_max: reader.count("WEBSOCKET_MAX_CONNECTIONS", 1, 10_000_000),
        connections_per_address_max: reader.count(
            "WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS",
            1,
            10_000_000,
        ),
        handshakes_per_second_max: reader.rate("WEBSOCKET_MAX_HANDSHAKES_PER_SECOND"),
        handshakes_per_user_max: reader.rate("WEBSOCKET_MAX_HANDSHAKES_PER_USER_PER_MINUTE"),
        invalid_per_address_max: reader.rate("WEBSOCKET_MAX_INVALID_PER_ADDRESS_PER_MINUTE"),
        messages_per_minute_max: reader.rate("WEBSOCKET_MAX_MESSAGES_PER_MINUTE"),
        pending_handshakes_max: reader.count("WEBSOCKET_MAX_PENDING_HANDSHAKES", 1, 1_000_000),
        handshake_timeout: reader.seconds("WEBSOCKET_HANDSHAKE_TIMEOUT_SECONDS", 1, 60),
    }
}

/// A client that returns to a closed duel must find it closed, and not a new one.
pub(super) fn check_retention(reader: &mut Reader<'_>, config: &Config) {
    let longest = config.tickets.resume_ttl.max(config.tickets.ttl);
    if config.engine.closed_retention < longest {
        let text =
            "must not be less than WEBSOCKET_TICKET_TTL_SECONDS and WEBSOCKET_RESUME_TTL_SECONDS";
        reader.problem("ENGINE_CLOSED_RETENTION_SECONDS", text);
    }
}

/// Returns the origin of a URL (RFC 6454, section 6.1), as a browser writes it in its `Origin` header.
fn read_origin(reader: &mut Reader<'_>, url: &str) -> Option<String> {
    let uri = url.parse::<axum::http::Uri>().ok();
    let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?, uri.port_u16())));
    let Some((scheme @ ("http" | "https"), host, port)) = parts else {
        reader.problem("WEBAPP_URL", "must be URLs like https://your-domain.com");
        return None;
    };
    let host = host.to_ascii_lowercase();
    Some(match port {
        None | Some(80) if scheme == "http" => format!("http://{host}"),
        None | Some(443) if scheme == "https" => format!("https://{host}"),
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

pub(super) fn read_control(reader: &mut Reader<'_>) -> ControlConfig {
    let address: SocketAddr = reader.address("CONTROL_HOST", "CONTROL_PORT").into();
    let token = reader.optional("CONTROL_TOKEN").map(Secret::new);
    if token.as_ref().is_some_and(|token| token.as_bytes().len() < CONTROL_TOKEN_BYTES_MIN) {
        let text = format!("must have at least {CONTROL_TOKEN_BYTES_MIN} bytes");
        reader.problem("CONTROL_TOKEN", text);
    }
    let tls = read_control_tls(reader);
    let mutual = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if !address.ip().is_loopback() && token.is_none() && !mutual {
        let text = "is required, or CONTROL_TLS_CLIENT_CA, when CONTROL_HOST is not loopback";
        reader.problem("CONTROL_TOKEN", text);
    }
    ControlConfig {
        address,
        token,
        tls,
        connections_max: reader.count("CONTROL_MAX_CONNECTIONS", 1, 4096),
        newcomers_max: limits::CONTROL_NEWCOMERS.1,
        patience: ControlPatience::default(),
        pushes_in_flight_max: reader.count("CONTROL_MAX_PUSHES_IN_FLIGHT", 1, PUSHES_IN_FLIGHT_MAX),
        payload_bytes_max: reader.count(
            "CONTROL_MAX_PAYLOAD_BYTES",
            64,
            u32::try_from(limits::PUSH_BYTES_MAX).unwrap_or(u32::MAX),
        ),
    }
}

fn read_control_tls(reader: &mut Reader<'_>) -> Option<ControlTls> {
    let named = |name| reader.optional(name).is_some();
    let (has_cert, has_key) = (named("CONTROL_TLS_CERT"), named("CONTROL_TLS_KEY"));
    let has_ca = named("CONTROL_TLS_CLIENT_CA");
    if has_cert && !has_key {
        reader.problem("CONTROL_TLS_KEY", "is required with CONTROL_TLS_CERT");
    }
    if has_key && !has_cert {
        reader.problem("CONTROL_TLS_CERT", "is required with CONTROL_TLS_KEY");
    }
    if has_ca && !has_cert {
        reader.problem("CONTROL_TLS_CERT", "is required with CONTROL_TLS_CLIENT_CA");
    }
    let (cert, key) = (reader.file("CONTROL_TLS_CERT"), reader.file("CONTROL_TLS_KEY"));
    let client_ca = reader.file("CONTROL_TLS_CLIENT_CA");
    Some(ControlTls { cert: cert?, key: key?, client_ca })
}

pub(super) fn read_admin(
    reader: &mut Reader<'_>,
    production: bool,
    control_token: Option<&Secret>,
    warnings: &mut Vec<String>,
) -> AdminConfig {
    let address: SocketAddr = reader.address("ADMIN_HOST", "ADMIN_PORT").into();
    if !address.ip().is_loopback() {
        if production {
            reader
                .problem("ADMIN_HOST", "must be loopback in production: it has no authentication");
        }
        warnings.push("ADMIN_HOST is not loopback, and has no authentication".into());
    }
    let console_access = match (address.ip().is_loopback(), control_token) {
        (true, _) => ConsoleAccess::Local,
        (false, Some(token)) => ConsoleAccess::Token(token.clone()),
        (false, None) => ConsoleAccess::Nobody,
    };
    AdminConfig {
        address,
        timeout: limits::ADMIN_TIMEOUT,
        connections_max: limits::ADMIN_CONNECTIONS.1,
        console_access,
        shows_payloads: !production,
    }
}
