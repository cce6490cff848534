//! Typed settings, one section per module.
//!
//! A variable comes from its flag, else the environment, else the env file, else its default. One pass finds all problems
//! ([`Config::read`]). No problem shows a value, which may be a secret.

mod env_file;
mod ip_network;
mod reader;
mod secret;
mod sections;
mod variables;
mod warnings;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(any(test, fuzzing))]
pub(crate) use self::env_file::env_file_variables;
pub use self::env_file::read_env_file;
pub use self::ip_network::IpNetwork;
pub use self::reader::Problem;
use self::reader::Reader;
pub use self::secret::Secret;
pub use self::variables::{VARIABLES, Variable};
use crate::limits;

/// Bytes of the shortest ticket secret in production: as many as the hash of HS256 (RFC 7518, section 3.2).
pub const TICKET_SECRET_BYTES_MIN: usize = 32;

/// Bytes of the shortest control token.
pub const CONTROL_TOKEN_BYTES_MIN: usize = 16;

/// Where the process runs, as far as safety is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppEnv {
    /// With real players: unsafe settings are refused.
    Production,
    /// On a developer's machine: a random secret will do, and the demo page is served.
    Development,
}

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object each.
    Json,
    /// For people.
    Text,
}

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the process runs.
    pub app_env: AppEnv,
    /// The least severe level that is logged.
    pub log_level: tracing::Level,
    /// How lines of the log are written.
    pub log_format: LogFormat,
    /// The tickets.
    pub tickets: TicketConfig,
    /// How the HTTP ticket API authenticates.
    pub telegram: TelegramConfig,
    /// The kind of engine.
    pub engine_kind: EngineKind,
    /// What all engines have in common.
    pub engine: EngineConfig,
    /// The hub.
    pub hub: HubConfig,
    /// The data plane.
    pub edge: EdgeConfig,
    /// The control plane.
    pub control: ControlConfig,
    /// The admin listener.
    pub admin: AdminConfig,
    /// What is allowed but unwise. Logged at start.
    pub warnings: Vec<String>,
}

/// Settings of [`crate::ticket`].
#[derive(Debug, Clone)]
pub struct TicketConfig {
    /// The secret that signs and verifies.
    pub secret: Secret,
    /// Whether the secret was given, and not made up at start.
    pub configured: bool,
    /// The secret before, which only verifies.
    pub secret_previous: Option<Secret>,
    /// The lifetime of a ticket if the backend gives none.
    pub ttl: Duration,
    /// The lifetime of a resume ticket.
    pub resume_ttl: Duration,
}

/// Settings of [`crate::telegram`].
#[derive(Debug, Clone)]
pub struct TelegramConfig {
    /// The token that verifies initData. `None`: nobody can be verified.
    pub bot_token: Option<Secret>,
    /// The age of the oldest `auth_date` accepted.
    pub init_data_ttl: Duration,
    /// What stands in for initData. `None` in production.
    pub dev_auth: Option<DevAuth>,
}

/// The stand-in for initData in development.
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
    /// Sessions and revocations remembered while a ticket of theirs may live.
    pub tickets_max: usize,
    /// How long a resume ticket lives.
    pub resume_ttl: Duration,
    /// How long a closed duel is kept.
    pub closed_retention: Duration,
    /// How long a duel is kept in which nothing happens.
    pub idle_retention: Duration,
}

/// What stores and orders events.
#[derive(Debug, Clone)]
pub enum EngineKind {
    /// A store on the disk.
    Embedded(StoreConfig),
    /// Nothing that outlives the process.
    Memory,
    /// A Redis that several nodes share.
    Redis(RedisConfig),
}

impl EngineKind {
    /// Returns whether other nodes may serve clients and backends while this one is away.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Redis(_))
    }
}

/// Settings of the engine of several nodes.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// The address, with credentials.
    pub url: Secret,
    /// The prefix of all keys and channels.
    pub prefix: String,
    /// How many replicas must have a push before it is acknowledged.
    pub wait_replicas: u32,
}

/// Settings of the engine that stores on the disk.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The directory of its files.
    pub data_dir: PathBuf,
    /// When a push counts as stored.
    pub durability: Durability,
}

/// When a push counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When the disk has it. Survives a power loss.
    Fsync,
    /// When the kernel has it. Survives the end of the process, not a power loss.
    Os,
}

/// Settings of [`crate::hub`].
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// The time between two repair sweeps.
    pub sync_interval: Duration,
    /// Connections of one user in one duel.
    pub connections_per_user_max: usize,
    /// How long a user may be without a connection before they are offline.
    pub presence_grace: Duration,
    /// Watches at a time.
    pub watchers_max: usize,
    /// The time over which clients that have to reconnect are closed. Zero for a node alone: nobody else would serve them.
    pub drain: Duration,
    /// How long nobody can connect when the node restarts. Zero for one of several nodes.
    pub restart_gap: Duration,
    /// How many clients that were closed together may come back a second, at least 1.
    pub reconnects_per_second: u32,
}

/// Settings of [`crate::edge`].
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// The address to listen on.
    pub address: SocketAddr,
    /// Allowed browser origins. Empty: any, in development only.
    pub origins: Vec<String>,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNetwork>,
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
    /// Opening handshakes of one user a minute.
    pub handshakes_per_user_max: u32,
    /// Handshakes and ticket requests of one address a minute that show nothing valid.
    pub invalid_per_address_max: u32,
    /// Messages of one client a minute.
    pub messages_per_minute_max: u32,
    /// Sockets without a valid ticket yet.
    pub pending_handshakes_max: usize,
    /// How long such a socket may take.
    pub handshake_timeout: Duration,
}

/// Settings of [`crate::control`].
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// The address to listen on.
    pub address: SocketAddr,
    /// The bearer token of every caller. `None`: callers need none.
    pub token: Option<Secret>,
    /// `None`: no TLS.
    pub tls: Option<ControlTls>,
    /// Connections of which a call was accepted.
    pub connections_max: usize,
    /// Connections of which none was accepted yet.
    pub newcomers_max: usize,
    /// How long it waits for its peers.
    pub patience: ControlPatience,
    /// Pushes being stored at a time.
    pub pushes_in_flight_max: usize,
    /// Largest payload, in bytes.
    pub payload_bytes_max: usize,
}

/// How long the control plane waits for its peers. No variable changes it; tests do.
#[derive(Debug, Clone, Copy)]
pub struct ControlPatience {
    /// For the TLS handshake and the beginning of HTTP/2.
    pub handshake: Duration,
    /// For the first call that is accepted, since the connection was opened.
    pub first_call: Duration,
    /// For the rest of a message.
    pub message: Duration,
    /// For an answer to be taken.
    pub answer: Duration,
}

impl Default for ControlPatience {
    fn default() -> Self {
        Self {
            handshake: limits::CONTROL_HANDSHAKE_TIMEOUT,
            first_call: limits::CONTROL_FIRST_CALL_TIMEOUT,
            message: limits::GRPC_MESSAGE_TIMEOUT,
            answer: limits::GRPC_ANSWER_TIMEOUT,
        }
    }
}

/// TLS of the control plane, as PEM.
#[derive(Clone)]
pub struct ControlTls {
    /// Certificate chain.
    pub cert: Vec<u8>,
    /// Private key.
    pub key: Vec<u8>,
    /// Authority of the callers' certificates. `None`: callers need none.
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
    /// The address to listen on.
    pub address: SocketAddr,
    /// How long a connection may take, for its one request and the answer.
    pub timeout: Duration,
    /// Connections at a time.
    pub connections_max: usize,
    /// Who may read the console.
    pub console_access: ConsoleAccess,
    /// Whether the console shows payloads: in development only, because they are the players'.
    pub shows_payloads: bool,
}

/// Who may read the operators' console.
#[derive(Debug, Clone)]
pub enum ConsoleAccess {
    /// Every program of this machine, as with `/metrics`: the listener is on loopback.
    Local,
    /// Who shows the control token: the listener is beyond loopback.
    Token(Secret),
    /// Nobody: the listener is beyond loopback, and there is no token to show.
    Nobody,
}

impl Config {
    /// Reads every variable through `lookup`, which returns the text of a variable or `None` if it is unset.
    ///
    /// # Errors
    /// All problems, in the order of the documentation.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::new(lookup);
        let app_env = reader.value("APP_ENV", |text| match text {
            "production" => Ok(AppEnv::Production),
            "development" => Ok(AppEnv::Development),
            _ => Err("must be production or development".to_owned()),
        });
        let production = app_env == AppEnv::Production;
        let mut warnings = Vec::new();
        let engine_kind = sections::read_engine_kind(&mut reader, &mut warnings);
        let tickets = sections::read_tickets(&mut reader, production, &mut warnings);
        let engine = sections::read_engine(&mut reader, tickets.resume_ttl);
        let several_nodes = engine_kind.is_shared();
        let edge = sections::read_edge(&mut reader, production);
        let control = sections::read_control(&mut reader);
        let console_token = control.token.clone();
        if production {
            warnings.extend(warnings::of_control(&control).map(str::to_owned));
        }
        let config = Self {
            app_env,
            log_level: reader.value("LOG_LEVEL", |text| {
                text.parse().map_err(|_| "must be error, warn, info, debug or trace".to_owned())
            }),
            log_format: reader.value("LOG_FORMAT", |text| match text {
                "auto" => Ok(if production { LogFormat::Json } else { LogFormat::Text }),
                "json" => Ok(LogFormat::Json),
                "text" => Ok(LogFormat::Text),
                _ => Err("must be auto, json or text".to_owned()),
            }),
            tickets,
            telegram: sections::read_telegram(&mut reader, production, &mut warnings),
            engine_kind,
            engine,
            hub: sections::read_hub(&mut reader, several_nodes, edge.handshakes_per_second_max),
            edge,
            control,
            admin: sections::read_admin(
                &mut reader,
                production,
                console_token.as_ref(),
                &mut warnings,
            ),
            warnings,
        };
        sections::check_retention(&mut reader, &config);
        let order = |name| VARIABLES.iter().position(|variable| variable.name == name);
        reader.problems.sort_by_key(|problem| order(problem.name));
        if reader.problems.is_empty() { Ok(config) } else { Err(reader.problems) }
    }
}

/// Returns names that look like variables of the hub but are none, most likely because they are misspelt.
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
