//! Where Redis is: at one address, or wherever its Sentinels or the members of its Cluster say that the master is.
//!
//! The library's `SentinelClient` is not used: it logs in alike at all Sentinels, but some have a password and some refuse any; and
//! each is asked for half a second at most, so that the next one is asked in time.

use std::ops::RangeInclusive;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    ProtocolVersion, Value,
};

use super::RedisUrlError;
use super::reply::Parts;
use crate::engine::event_row::Malformed;
use crate::limits;

/// How long one who should know may take, so that the others are asked in time.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// The ports, unless the URL says others.
const SENTINEL_PORT: u16 = 26379;
const REDIS_PORT: u16 = 6379;

/// One of them.
#[derive(Clone)]
pub(super) enum Endpoint {
    /// At one address.
    Fixed(ConnectionInfo),
    /// At that master of a Cluster which has a hash tag.
    Cluster {
        /// Members that say which it is.
        members: Vec<Client>,
        /// The hash tag. Empty: it has still to be named.
        tag: String,
        /// How to be let in there; its address is replaced.
        info: ConnectionInfo,
    },
    /// Where the Sentinels say.
    Sentinels {
        /// All of them.
        sentinels: Vec<Client>,
        /// What the master is called.
        master: String,
        /// How to be let in there; its address is replaced.
        info: ConnectionInfo,
    },
}

impl Endpoint {
    /// Reads a URL: `redis://…`, `redis+unix://…`, or
    /// `redis+sentinel://[user:password@]host[:port][,host[:port]…]/master[/database]`, or
    /// `redis+cluster://[user:password@]host[:port][,host[:port]…]`. With `rediss` for `redis`, everybody is reached over TLS.
    pub(super) fn parse(url: &str) -> Result<Self, RedisUrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(RedisUrlError)?;
        match scheme.split_once('+') {
            Some((tls @ ("redis" | "rediss"), "sentinel")) => Self::sentinels(tls, rest),
            Some((tls @ ("redis" | "rediss"), "cluster")) => {
                let (login, hosts) = hosts(rest.trim_end_matches('/'));
                Ok(Self::Cluster {
                    members: clients(tls, &login, hosts, REDIS_PORT)?,
                    tag: String::new(),
                    info: info(&format!("{tls}://{login}localhost"))?,
                })
            }
            _ => Ok(Self::Fixed(info(url)?)),
        }
    }

    fn sentinels(scheme: &str, rest: &str) -> Result<Self, RedisUrlError> {
        let (authority, path) = rest.split_once('/').ok_or(RedisUrlError)?;
        let (master, database) = path.split_once('/').unwrap_or((path, "0"));
        if master.is_empty() {
            return Err(RedisUrlError);
        }
        let (login, hosts) = hosts(authority);
        let mut sentinels = clients(scheme, "", hosts, SENTINEL_PORT)?;
        if !login.is_empty() {
            // One with a password has the master's, as is usual; one without refuses any.
            sentinels.extend(clients(scheme, &login, hosts, SENTINEL_PORT)?);
        }
        Ok(Self::Sentinels {
            sentinels,
            master: master.to_owned(),
            info: info(&format!("{scheme}://{login}localhost/{database}"))?,
        })
    }

    /// The same of a Cluster, for a hash tag.
    pub(super) fn with_tag(mut self, name: &str) -> Self {
        if let Self::Cluster { tag, .. } = &mut self {
            name.clone_into(tag);
        }
        self
    }

    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster { .. })
    }

    /// Where it is now.
    async fn find(&self) -> Result<ConnectionInfo, String> {
        let mut failure = "nobody is named who knows".to_owned();
        let (those_who_know, info) = match self {
            Self::Fixed(info) => return Ok(info.clone()),
            Self::Sentinels { sentinels, info, .. } => (sentinels, info),
            Self::Cluster { members, info, .. } => (members, info),
        };
        for client in those_who_know {
            match self.ask(client).await {
                Ok((host, port)) => {
                    return Ok(info.clone().set_addr(moved(info.addr(), host, port)));
                }
                Err(error) => failure = error,
            }
        }
        Err(format!("nobody knows the master: {failure}"))
    }

    /// Where one who should know says that the master is.
    async fn ask(&self, client: &Client) -> Result<(String, u16), String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ASK_TIMEOUT))
            .set_response_timeout(Some(ASK_TIMEOUT));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(|error| plain(&error))?;
        let address = match self {
            Self::Cluster { tag, .. } => owner(&mut connection, client, tag).await,
            Self::Sentinels { master, .. } => {
                let mut command = redis::cmd("SENTINEL");
                command.arg("get-master-addr-by-name").arg(master);
                command.query_async(&mut connection).await
            }
            Self::Fixed(_) => Ok(None),
        };
        address.map_err(|error| plain(&error))?.ok_or_else(|| "it has no such master".to_owned())
    }

    /// Connects, with `config`, to a server that takes writes.
    pub(super) async fn connect(
        &self,
        protocol: ProtocolVersion,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, String> {
        let info = self.find().await?;
        let settings = info.redis_settings().clone().set_protocol(protocol);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp());
        let client = Client::open(info).map_err(|e| plain(&e))?;
        let config = config
            .set_connection_timeout(Some(limits::REDIS_TIMEOUT))
            .set_response_timeout(Some(limits::REDIS_TIMEOUT));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        connecting.await.map_err(|error| plain(&error))
    }
}

/// What is sent leaves at once, and what the network swallows is given up when its answer is: a kernel that went on sending
/// would deliver it when the network is back, after whatever was done since.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true).set_user_timeout(limits::REDIS_TIMEOUT)
}

/// The same kind of address, elsewhere.
fn moved(address: &ConnectionAddr, host: String, port: u16) -> ConnectionAddr {
    if matches!(address, ConnectionAddr::TcpTls { .. }) {
        return ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
    }
    ConnectionAddr::Tcp(host, port)
}

/// Of `[user:password@]host[,host…]`: the login, with its `@`, and the hosts.
fn hosts(authority: &str) -> (String, &str) {
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    (if login.is_empty() { String::new() } else { format!("{login}@") }, hosts)
}

fn clients(
    scheme: &str,
    login: &str,
    hosts: &str,
    port: u16,
) -> Result<Vec<Client>, RedisUrlError> {
    let client = |host: &str| {
        let port = if host.contains(':') { String::new() } else { format!(":{port}") };
        Client::open(info(&format!("{scheme}://{login}{host}{port}"))?).map_err(|_| RedisUrlError)
    };
    hosts.split(',').map(client).collect()
}

fn info(url: &str) -> Result<ConnectionInfo, RedisUrlError> {
    url.into_connection_info().map_err(|_| RedisUrlError)
}

/// The master of the slot of a hash tag, as a member of the Cluster says.
async fn owner(
    connection: &mut MultiplexedConnection,
    member: &Client,
    tag: &str,
) -> redis::RedisResult<Option<(String, u16)>> {
    let mut slot = redis::cmd("CLUSTER");
    slot.arg("KEYSLOT").arg(tag);
    let slot: u64 = slot.query_async(connection).await?;
    let mut slots = redis::cmd("CLUSTER");
    slots.arg("SLOTS");
    let slots: Vec<Value> = slots.query_async(connection).await?;
    let (ConnectionAddr::Tcp(own, _) | ConnectionAddr::TcpTls { host: own, .. }) =
        member.get_connection_info().addr()
    else {
        return Ok(None);
    };
    for range in slots {
        // One that does not know its own name is the one that was asked.
        if let Ok((range, host, port)) = master_of(range)
            && range.contains(&slot)
        {
            return Ok(Some((if host.is_empty() { own.clone() } else { host }, port)));
        }
    }
    Ok(None)
}

/// Of first, last, the master and its replicas, each with host, port, and more: the slots, and where the master is.
fn master_of(range: Value) -> Result<(RangeInclusive<u64>, String, u16), Malformed> {
    let mut parts = Parts::of(range)?;
    let slots = parts.number()?..=parts.number()?;
    let mut master = parts.parts()?;
    let (host, port) = (master.text()?, master.number()?);
    Ok((slots, host, u16::try_from(port).map_err(|_| Malformed("a port"))?))
}

/// Which server it is.
pub(super) struct Identity {
    /// The same for as long as it runs.
    pub(super) server: String,
    /// Which history of data it has. It changes if the server was a replica meanwhile, and when it gets its first replica.
    pub(super) replication_id: String,
}

/// Which server it is, if it takes writes.
pub(super) async fn identity(connection: &mut MultiplexedConnection) -> Result<Identity, String> {
    let mut asked = redis::pipe();
    asked.cmd("INFO").arg("replication").cmd("INFO").arg("server");
    let info: Result<(String, String), _> = asked.query_async(connection).await;
    let (replication, server) = info.map_err(|error| plain(&error))?;
    let field = |info: &str, name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)).map(ToOwned::to_owned)
    };
    if field(&replication, "role:").is_some_and(|role| role != "master") {
        return Err("it is a replica".to_owned());
    }
    let replication_id = field(&replication, "master_replid:").unwrap_or_default();
    Ok(Identity { server: field(&server, "run_id:").unwrap_or_default(), replication_id })
}

/// Without what it may quote of a command or an address.
pub(super) fn plain(error: &redis::RedisError) -> String {
    match error.code() {
        Some(code) => format!("it answered {code}"),
        None if error.is_timeout() => "it did not answer in time".to_owned(),
        None if error.is_connection_refusal() => "the connection was refused".to_owned(),
        None => error.category().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_tls_everybody_is_reached_over_tls() {
        let is_tls = |info: &ConnectionInfo| matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        for (scheme, tls) in [("redis", false), ("rediss", true)] {
            for rest in ["+sentinel://a,b/game", "+cluster://a,b"] {
                let parsed = Endpoint::parse(&format!("{scheme}{rest}")).unwrap();
                let (Endpoint::Sentinels { sentinels: asked, info, .. }
                | Endpoint::Cluster { members: asked, info, .. }) = parsed
                else {
                    panic!("not at one address")
                };
                assert!(asked.iter().all(|client| is_tls(client.get_connection_info()) == tls));
                let found = info.clone().set_addr(moved(info.addr(), "c".to_owned(), 1));
                assert_eq!((is_tls(&found), found.addr().to_string()), (tls, "c:1".to_owned()));
            }
        }
    }

    #[test]
    fn urls_of_sentinels_name_several_hosts_and_a_master() {
        let parsed = Endpoint::parse("redis+sentinel://u:p@a,b:1/game/3").unwrap();
        let Endpoint::Sentinels { sentinels, master, info } = parsed else { panic!("Sentinels") };
        let addresses: Vec<_> = (sentinels.iter())
            .map(|sentinel| sentinel.get_connection_info().addr().to_string())
            .collect();
        assert_eq!(addresses, ["a:26379", "b:1", "a:26379", "b:1"]);
        let logins = sentinels.iter().map(|s| s.get_connection_info().redis_settings().username());
        assert!(logins.eq([None, None, Some("u"), Some("u")]), "with the password and without");
        assert_eq!(master, "game");
        assert_eq!((info.redis_settings().username(), info.redis_settings().db()), (Some("u"), 3));
        for bad in
            ["redis+sentinel://a", "redis+sentinel://a/", "http://a", "redis://", "x+cluster://a"]
        {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
