//! Where Redis is: at one address, or wherever its Sentinels say that the master is.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion,
};

use super::RedisUrlError;
use super::link::plain;
use crate::limits;

/// How long one Sentinel may take, so that the others are asked in time.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(500);

/// The port of a Sentinel, unless the URL says another.
const SENTINEL_PORT: &str = "26379";

/// One of them.
#[derive(Clone)]
pub(super) enum Endpoint {
    /// At one address.
    Fixed(ConnectionInfo),
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
    /// Reads a URL: `redis://…`, `rediss://…`, `redis+unix://…`, or
    /// `redis+sentinel://[user:password@]host[:port][,host[:port]…]/master[/database]`.
    pub(super) fn parse(url: &str) -> Result<Self, RedisUrlError> {
        let fixed = |url: String| url.into_connection_info().map_err(|_| RedisUrlError);
        let Some(rest) = url.strip_prefix("redis+sentinel://") else {
            return Ok(Self::Fixed(fixed(url.to_owned())?));
        };
        let (authority, path) = rest.split_once('/').ok_or(RedisUrlError)?;
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (master, database) = path.split_once('/').unwrap_or((path, "0"));
        if master.is_empty() {
            return Err(RedisUrlError);
        }
        let login = if login.is_empty() { String::new() } else { format!("{login}@") };
        let sentinel = |host: &str| {
            let port = if host.contains(':') { "" } else { SENTINEL_PORT };
            let colon = if port.is_empty() { "" } else { ":" };
            Client::open(format!("redis://{host}{colon}{port}")).map_err(|_| RedisUrlError)
        };
        Ok(Self::Sentinels {
            sentinels: hosts.split(',').map(sentinel).collect::<Result<_, _>>()?,
            master: master.to_owned(),
            info: fixed(format!("redis://{login}localhost/{database}"))?,
        })
    }

    /// Where it is now.
    async fn find(&self) -> Result<ConnectionInfo, String> {
        let Self::Sentinels { sentinels, master, info } = self else {
            let Self::Fixed(info) = self else { unreachable!("there are two kinds") };
            return Ok(info.clone());
        };
        let mut failure = "no Sentinel is named".to_owned();
        for sentinel in sentinels {
            match ask(sentinel, master).await {
                Ok((host, port)) => {
                    return Ok(info.clone().set_addr(redis::ConnectionAddr::Tcp(host, port)));
                }
                Err(error) => failure = error,
            }
        }
        Err(format!("no Sentinel knows the master: {failure}"))
    }

    /// Connects, with `config`, to a server that takes writes.
    pub(super) async fn connect(
        &self,
        protocol: ProtocolVersion,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, String> {
        let info = self.find().await?;
        let settings = info.redis_settings().clone().set_protocol(protocol);
        let client = Client::open(info.set_redis_settings(settings)).map_err(|e| plain(&e))?;
        let config = config
            .set_connection_timeout(Some(limits::REDIS_TIMEOUT))
            .set_response_timeout(Some(limits::REDIS_TIMEOUT));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        connecting.await.map_err(|error| plain(&error))
    }
}

/// Where a Sentinel says that a master is.
async fn ask(sentinel: &Client, master: &str) -> Result<(String, u16), String> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SENTINEL_TIMEOUT))
        .set_response_timeout(Some(SENTINEL_TIMEOUT));
    let connecting = sentinel.get_multiplexed_async_connection_with_config(&config);
    let mut connection = connecting.await.map_err(|error| plain(&error))?;
    let mut command = redis::cmd("SENTINEL");
    command.arg("get-master-addr-by-name").arg(master);
    let address: Result<Option<(String, u16)>, _> = command.query_async(&mut connection).await;
    address.map_err(|error| plain(&error))?.ok_or_else(|| "it has no such master".to_owned())
}

/// Of which lineage the data of a server is that takes writes; see `scripts/common.lua`.
pub(super) async fn lineage(connection: &mut MultiplexedConnection) -> Result<String, String> {
    let mut command = redis::cmd("INFO");
    command.arg("replication");
    let info: Result<String, _> = command.query_async(connection).await;
    let info = info.map_err(|error| plain(&error))?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
    if field("role:").is_some_and(|role| role != "master") {
        return Err("it is a replica".to_owned());
    }
    Ok(field("master_replid:").unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_sentinels_name_several_hosts_and_a_master() {
        let parsed = Endpoint::parse("redis+sentinel://u:p@a,b:1/game/3").unwrap();
        let Endpoint::Sentinels { sentinels, master, info } = parsed else { panic!("Sentinels") };
        let addresses: Vec<_> = (sentinels.iter())
            .map(|sentinel| sentinel.get_connection_info().addr().to_string())
            .collect();
        assert_eq!(addresses, ["a:26379", "b:1"]);
        assert_eq!(master, "game");
        assert_eq!((info.redis_settings().username(), info.redis_settings().db()), (Some("u"), 3));
        for bad in ["redis+sentinel://a", "redis+sentinel://a/", "http://a", "redis://"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
