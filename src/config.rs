//! Typed settings, one section per layer, each layer given its own by value.
//!
//! A variable comes from its flag, else the environment, else the env file, else its default. All problems are found in
//! one pass ([`Config::read`]); no problem ever shows a value, which may be a secret.

mod reader;
mod variables;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

pub use self::reader::Problem;
use self::reader::Reader;
pub use self::variables::{VARIABLES, Variable};
use crate::limits;

/// Bytes that a ticket secret has at least in production: as many as the hash of HS256 (RFC 7518, section 3.2).
pub const TICKET_SECRET_BYTES_MIN: usize = 32;

/// Bytes that a control token has at least.
pub const CONTROL_TOKEN_BYTES_MIN: usize = 16;

/// A text that no log and no `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text into keeping.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// A new one of 256 random bits.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()))
    }

    /// Its bytes, for a key or a comparison in constant time.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Its text, for a header.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where the process runs, as far as safety is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppEnv {
    /// With real players: every safety requirement is hard.
    Production,
    /// On somebody's desk: a random secret will do, and the demo page is served.
    Development,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the process runs.
    pub app_env: AppEnv,
    /// Least severe level that is logged.
    pub log_level: tracing::Level,
    /// Tickets.
    pub tickets: TicketConfig,
    /// Who the HTTP ticket API believes.
    pub telegram: TelegramConfig,
    /// The engine.
    pub engine: EngineConfig,
    /// The hub.
    pub hub: HubConfig,
    /// The data plane.
    pub edge: EdgeConfig,
    /// The control plane.
    pub control: ControlConfig,
    /// The admin listener.
    pub admin: AdminConfig,
    /// What is allowed but unwise; logged at start.
    pub warnings: Vec<String>,
}

/// Settings of [`crate::ticket`].
#[derive(Debug, Clone)]
pub struct TicketConfig {
    /// Signs and verifies.
    pub secret: Secret,
    /// Whether it was given, and not made up at start.
    pub configured: bool,
    /// Verifies only.
    pub secret_previous: Option<Secret>,
    /// Life of a ticket when the backend does not say.
    pub ttl: Duration,
    /// Life of a resume ticket.
    pub resume_ttl: Duration,
}

/// Settings of [`crate::telegram`].
#[derive(Debug, Clone)]
pub struct TelegramConfig {
    /// Verifies initData. Unset: nobody can be verified.
    pub bot_token: Option<Secret>,
    /// Oldest `auth_date` accepted.
    pub init_data_ttl: Duration,
    /// Stands in for initData. Never in production.
    pub dev_auth: Option<DevAuth>,
}

/// The stand-in for initData on somebody's desk.
#[derive(Debug, Clone, Copy)]
pub struct DevAuth {
    /// The Telegram user of a request that does not name one.
    pub user: Option<u64>,
}

/// Settings of [`crate::engine`].
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Duels held at a time.
    pub duels_max: usize,
    /// Events kept per duel.
    pub log_events_max: usize,
    /// Bytes of events kept per duel.
    pub log_bytes_max: usize,
    /// Used and revoked tickets remembered until they expire.
    pub tickets_max: usize,
    /// How long a closed duel is kept.
    pub closed_retention: Duration,
    /// How long a duel is kept in which nothing happens.
    pub idle_retention: Duration,
}

/// Settings of [`crate::hub`].
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Between two repair sweeps.
    pub sync_interval: Duration,
    /// Connections of one user in one duel.
    pub connections_per_user_max: usize,
    /// How long a user may be gone before they count as offline.
    pub presence_grace: Duration,
    /// Streams of changes at a time.
    pub watchers_max: usize,
}

/// Settings of [`crate::edge`].
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Where to listen.
    pub address: SocketAddr,
    /// Allowed browser origins. Empty: any, which only development allows.
    pub origins: Vec<String>,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// A connection silent for longer is closed.
    pub client_timeout: Duration,
    /// Largest message accepted from a client, in bytes.
    pub message_bytes_max: usize,
    /// Connections in all.
    pub connections_max: usize,
    /// Connections of one client address.
    pub connections_per_address_max: usize,
    /// Opening handshakes a second.
    pub handshakes_per_second_max: u32,
    /// Sockets that have not shown a valid ticket.
    pub pending_handshakes_max: usize,
    /// How long such a socket may take.
    pub handshake_timeout: Duration,
    /// At shutdown, clients are sent away spread over this time.
    pub drain: Duration,
}

/// Settings of [`crate::control`].
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Where to listen.
    pub address: SocketAddr,
    /// Every caller must show it.
    pub token: Option<Secret>,
    /// Unset: no TLS.
    pub tls: Option<ControlTls>,
    /// Pushes being stored at a time.
    pub pushes_in_flight_max: usize,
    /// Largest payload, in bytes.
    pub payload_bytes_max: usize,
}

/// TLS of the control plane, as PEM.
#[derive(Clone)]
pub struct ControlTls {
    /// Certificate chain.
    pub cert: Vec<u8>,
    /// Private key.
    pub key: Vec<u8>,
    /// Authority of the callers' certificates. Unset: callers need none.
    pub client_ca: Option<Vec<u8>>,
}

impl fmt::Debug for ControlTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mutual = self.client_ca.is_some();
        f.debug_struct("ControlTls").field("mutual", &mutual).finish_non_exhaustive()
    }
}

/// Settings of [`crate::admin`].
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Where to listen.
    pub address: SocketAddr,
}

impl Config {
    /// Reads every variable through `lookup`, which answers with its text or `None` for unset.
    ///
    /// # Errors
    /// All problems there are, in the order of the documentation.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::new(lookup);
        let app_env = reader.value("APP_ENV", |text| match text {
            "production" => Ok(AppEnv::Production),
            "development" => Ok(AppEnv::Development),
            _ => Err("must be production or development".to_owned()),
        });
        let production = app_env == AppEnv::Production;
        let mut warnings = Vec::new();
        let engine = read_engine(&mut reader);
        let config = Self {
            app_env,
            log_level: reader.value("LOG_LEVEL", |text| {
                text.parse().map_err(|_| "must be error, warn, info, debug or trace".to_owned())
            }),
            tickets: read_tickets(&mut reader, production, &mut warnings),
            telegram: read_telegram(&mut reader, production),
            engine,
            hub: read_hub(&mut reader),
            edge: read_edge(&mut reader, production),
            control: read_control(&mut reader),
            admin: read_admin(&mut reader, production, &mut warnings),
            warnings,
        };
        let order = |name| VARIABLES.iter().position(|variable| variable.name == name);
        reader.problems.sort_by_key(|problem| order(problem.name));
        if reader.problems.is_empty() { Ok(config) } else { Err(reader.problems) }
    }
}

fn read_tickets(
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

fn read_telegram(reader: &mut Reader<'_>, production: bool) -> TelegramConfig {
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
    TelegramConfig {
        bot_token: reader.optional("TELEGRAM_BOT_TOKEN").map(Secret::new),
        init_data_ttl: reader.seconds("INIT_DATA_TTL_SECONDS", 1, 86_400 * 30),
        dev_auth: enabled.then_some(DevAuth { user }),
    }
}

fn read_engine(reader: &mut Reader<'_>) -> EngineConfig {
    reader.value("ENGINE", |text| match text {
        "memory" => Ok(()),
        _ => Err("must be memory: other engines are not in this version".to_owned()),
    });
    // The log must hold the largest push twice over, or a close with a last event could not be kept whole.
    let log_bytes_min = 2 * u32::try_from(limits::PUSH_BYTES_MAX).unwrap_or(u32::MAX);
    EngineConfig {
        duels_max: reader.count("ENGINE_MAX_DUELS", 1, 100_000_000),
        log_events_max: reader.count("ENGINE_MAX_LOG_EVENTS", 2, 1_000_000),
        log_bytes_max: reader.count("ENGINE_MAX_LOG_BYTES", log_bytes_min, 1 << 30),
        tickets_max: reader.count("ENGINE_MAX_REMEMBERED_TICKETS", 1000, 1_000_000_000),
        closed_retention: reader.seconds("ENGINE_CLOSED_RETENTION_SECONDS", 1, 86_400 * 30),
        idle_retention: reader.seconds("ENGINE_IDLE_RETENTION_SECONDS", 10, 86_400 * 365),
    }
}

fn read_hub(reader: &mut Reader<'_>) -> HubConfig {
    HubConfig {
        sync_interval: reader.fraction("WEBSOCKET_SYNC_INTERVAL", 0.5, 60.0),
        connections_per_user_max: reader.count("WEBSOCKET_MAX_CONNECTIONS_PER_USER", 1, 100),
        presence_grace: reader.fraction("PRESENCE_GRACE_SECONDS", 0.0, 60.0),
        watchers_max: reader.count("CONTROL_MAX_WATCHERS", 1, 10_000),
    }
}

fn read_edge(reader: &mut Reader<'_>, production: bool) -> EdgeConfig {
    let origins = match reader.optional("WEBAPP_URL") {
        Some(text) => text.split(',').filter_map(|url| read_origin(reader, url.trim())).collect(),
        None => Vec::new(),
    };
    if production && reader.optional("WEBAPP_URL").is_none() {
        reader.problem("WEBAPP_URL", "is required in production: the origin of the WebApp");
    }
    let trusted_proxies = reader.value("TRUSTED_PROXIES", |text| {
        let addresses = text.split(',').map(|ip| ip.trim().parse());
        addresses.collect::<Result<_, _>>().map_err(|_| "must be IP addresses".to_owned())
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
        handshakes_per_second_max: u32::try_from(reader.number(
            "WEBSOCKET_MAX_HANDSHAKES_PER_SECOND",
            1,
            1_000_000,
        ))
        .unwrap_or(u32::MAX),
        pending_handshakes_max: reader.count("WEBSOCKET_MAX_PENDING_HANDSHAKES", 1, 1_000_000),
        handshake_timeout: reader.seconds("WEBSOCKET_HANDSHAKE_TIMEOUT_SECONDS", 1, 60),
        drain: reader.fraction("WEBSOCKET_DRAIN_SECONDS", 0.0, 300.0),
    }
}

/// The origin of a URL (RFC 6454, section 6.1), as a browser writes it in its `Origin` header.
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

fn read_control(reader: &mut Reader<'_>) -> ControlConfig {
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
        pushes_in_flight_max: reader.count("CONTROL_MAX_PUSHES_IN_FLIGHT", 1, 1_000_000),
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

fn read_admin(
    reader: &mut Reader<'_>,
    production: bool,
    warnings: &mut Vec<String>,
) -> AdminConfig {
    let address: SocketAddr = reader.address("ADMIN_HOST", "ADMIN_PORT").into();
    if !address.ip().is_loopback() {
        if production {
            reader.problem(
                "ADMIN_HOST",
                "must be loopback in production: it asks nobody who they are",
            );
        }
        warnings.push("ADMIN_HOST is not loopback, and asks nobody who they are".into());
    }
    AdminConfig { address }
}

/// The variables that an env file sets.
///
/// # Errors
/// What is wrong with the file, a line of text each; never the contents of a line, which may be a secret.
pub fn read_env_file(path: &Path) -> Result<Vec<(String, String)>, Vec<String>> {
    let entries = dotenvy::from_path_iter(path)
        .map_err(|_| vec![format!("--env-file {} cannot be read", path.display())])?;
    let mut variables = Vec::new();
    let mut problems = Vec::new();
    for (index, entry) in entries.enumerate() {
        match entry {
            Ok(variable) => variables.push(variable),
            Err(_) => problems.push(format!(
                "--env-file {}: entry {} is not NAME=value",
                path.display(),
                index + 1
            )),
        }
    }
    if problems.is_empty() { Ok(variables) } else { Err(problems) }
}

/// Names that look like ours but are not in the table: most likely misspelt, and silently without effect.
#[must_use]
pub fn unknown_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    const PREFIXES: [&str; 5] = ["WEBSOCKET_", "CONTROL_", "ADMIN_", "ENGINE_", "PRESENCE_"];
    let ours = |name: &&str| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let known = |name: &str| VARIABLES.iter().any(|variable| variable.name == name);
    let mut unknown: Vec<_> = names.filter(ours).filter(|name| !known(name)).collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let lookup = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
        };
        Config::read(&lookup).map_err(|problems| problems.iter().map(Problem::to_string).collect())
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn every_default_parses_and_development_needs_nothing() {
        let config = read(&[]).unwrap();
        assert_eq!(config.app_env, AppEnv::Development);
        assert_eq!(config.edge.address, "127.0.0.1:8090".parse().unwrap());
        assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    }

    #[test]
    fn all_problems_are_reported_at_once_in_the_order_of_the_documentation() {
        let problems = read(&[
            ("APP_ENV", "production"),
            ("WEBSOCKET_HOST", "example.com"),
            ("WEBSOCKET_PORT", "65536"),
            ("WEBSOCKET_SYNC_INTERVAL", "0.4"),
            ("WEBSOCKET_TICKET_SECRET", "short"),
            ("WEBSOCKET_MAX_CONNECTIONS", "-1"),
            ("DEV_AUTH_ENABLED", "true"),
            ("CONTROL_HOST", "0.0.0.0"),
            ("CONTROL_TLS_CERT", "/does/not/exist"),
            ("ADMIN_HOST", "0.0.0.0"),
            ("ENGINE", "paper"),
            ("LOG_LEVEL", "loud"),
        ])
        .unwrap_err();
        let names: Vec<_> = problems.iter().map(|p| p.split(' ').next().unwrap()).collect();
        assert_eq!(
            names,
            [
                "WEBSOCKET_HOST",
                "WEBSOCKET_PORT",
                "WEBSOCKET_SYNC_INTERVAL",
                "WEBSOCKET_TICKET_SECRET",
                "WEBSOCKET_MAX_CONNECTIONS",
                "WEBAPP_URL",
                "DEV_AUTH_ENABLED",
                "CONTROL_TOKEN",
                "CONTROL_TLS_CERT",
                "CONTROL_TLS_KEY",
                "ADMIN_HOST",
                "ENGINE",
                "LOG_LEVEL",
            ],
            "{problems:#?}"
        );
    }

    #[test]
    fn production_insists_on_a_secret_of_its_own() {
        let base = [("APP_ENV", "production"), ("WEBAPP_URL", "https://a.example/app")];
        let with = |more: &[(&str, &str)]| read(&[&base, more].concat());
        assert!(with(&[("WEBSOCKET_TICKET_SECRET", SECRET)]).is_ok());
        assert!(with(&[]).is_err());
        assert!(with(&[("WEBSOCKET_TICKET_SECRET", "")]).is_err());
        let same = [("WEBSOCKET_TICKET_SECRET", SECRET), ("TELEGRAM_BOT_TOKEN", SECRET)];
        let problems = with(&same).unwrap_err();
        assert!(problems[0].contains("TELEGRAM_BOT_TOKEN"), "{problems:?}");
        assert!(!problems[0].contains(SECRET));
    }

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        let urls = "https://A.example/app/, http://b.example:80,https://c.example:8443";
        let config = read(&[("WEBAPP_URL", urls)]).unwrap();
        let expected = ["https://a.example", "http://b.example", "https://c.example:8443"];
        assert_eq!(config.edge.origins, expected);
        assert!(read(&[("WEBAPP_URL", "a.example")]).is_err());
    }

    #[test]
    fn secrets_do_not_show() {
        let config = read(&[
            ("WEBSOCKET_TICKET_SECRET", SECRET),
            ("TELEGRAM_BOT_TOKEN", "1:bot"),
            ("CONTROL_TOKEN", "control-token-of-mine"),
        ])
        .unwrap();
        let shown = format!("{config:?}");
        for secret in [SECRET, "1:bot", "control-token-of-mine"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn misspelt_names_are_noticed() {
        let names = ["WEBSOCKET_PROT", "WEBSOCKET_PORT", "DB_HOST", "CONTROL_TOKN"];
        assert_eq!(unknown_names(names.into_iter()), ["CONTROL_TOKN", "WEBSOCKET_PROT"]);
    }
}
