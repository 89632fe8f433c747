//! Where a Redis or Valkey server is, and how to connect to it.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisResult,
    Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};

use super::error::ReplicasError;

/// How long a connection may take to be made.
pub(super) const CONNECT: Duration = Duration::from_secs(1);

/// Where the store is.
#[derive(Clone)]
pub(crate) enum Endpoint {
    Single(Client),
    /// Some of the nodes, from which the client learns of the others; and each of them alone, to listen at.
    Cluster(ClusterClient, Vec<Client>),
    Sentinel {
        sentinels: Vec<redis::ConnectionAddr>,
        master: String,
        of: ConnectionInfo,
    },
}

#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

// ===== impl Endpoint =====

impl Endpoint {
    pub(crate) fn single(url: &str) -> Result<Self, ReplicasError> {
        Ok(Self::Single(open(info(url)?)?))
    }

    pub(crate) fn cluster(urls: &[&str]) -> Result<Self, ReplicasError> {
        let infos = infos(urls)?;
        let clients = infos.iter().cloned().map(open);
        let clients = clients.collect::<Result<Vec<_>, _>>()?;
        let cluster = ClusterClient::builder(infos)
            .tcp_settings(tcp())
            .connection_timeout(CONNECT)
            .response_timeout(CONNECT)
            .retries(1)
            .build()
            .map_err(ReplicasError)?;
        Ok(Self::Cluster(cluster, clients))
    }

    /// The first of `urls` also says how to log in at the master.
    pub(crate) fn sentinel(master: &str, urls: &[&str]) -> Result<Self, ReplicasError> {
        let infos = infos(urls)?;
        Ok(Self::Sentinel {
            sentinels: infos.iter().map(|info| info.addr().clone()).collect(),
            master: master.to_owned(),
            of: infos[0].clone(),
        })
    }

    pub(super) fn counts(&self) -> bool {
        // A node of a cluster knows only its own listeners.
        !matches!(self, Self::Cluster(..))
    }

    pub(super) async fn connect(&self) -> RedisResult<(Connection, Client)> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            // The protocol has its own timeouts.
            .set_response_timeout(None);
        match self {
            Self::Single(client) => {
                let connection = client.get_multiplexed_async_connection_with_config(&config);
                Ok((Connection::Single(connection.await?), client.clone()))
            }
            Self::Cluster(cluster, clients) => {
                let connection = cluster.get_async_connection().await?;
                for client in clients {
                    // Any node will do: a published message reaches all of them.
                    if client.get_async_pubsub().await.is_ok() {
                        return Ok((Connection::Cluster(connection), client.clone()));
                    }
                }
                Err((ErrorKind::Io, "no node can be listened at").into())
            }
            Self::Sentinel {
                sentinels,
                master,
                of,
            } => {
                let client = sentinel_client(sentinels, master, of)?
                    .async_get_client()
                    .await?;
                let client =
                    Client::open(client.get_connection_info().clone().set_tcp_settings(tcp()))?;
                let connection = client.get_multiplexed_async_connection_with_config(&config);
                Ok((Connection::Single(connection.await?), client))
            }
        }
    }
}

fn sentinel_client(
    sentinels: &[redis::ConnectionAddr],
    master: &str,
    of: &ConnectionInfo,
) -> RedisResult<SentinelClient> {
    let settings = of.redis_settings();
    let mut builder =
        SentinelClientBuilder::new(sentinels.to_vec(), master, SentinelServerType::Master)?
            .set_client_to_redis_db(settings.db())
            .set_client_to_redis_tcp_settings(tcp());
    if let Some(username) = settings.username() {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = settings.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if let redis::ConnectionAddr::TcpTls { insecure, .. } = of.addr() {
        let mode = match insecure {
            true => redis::TlsMode::Insecure,
            false => redis::TlsMode::Secure,
        };
        builder = builder
            .set_client_to_redis_tls_mode(mode)
            .set_client_to_sentinel_tls_mode(mode);
    }
    builder.build()
}

/// One or more.
fn infos(urls: &[&str]) -> Result<Vec<ConnectionInfo>, ReplicasError> {
    if urls.is_empty() {
        let error = (ErrorKind::InvalidClientConfig, "no address was given");
        return Err(ReplicasError(error.into()));
    }
    urls.iter().map(|url| info(url)).collect()
}

fn info(url: &str) -> Result<ConnectionInfo, ReplicasError> {
    let info = url.into_connection_info().map_err(ReplicasError)?;
    #[cfg(feature = "redis-tls")]
    if matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. }) {
        // The client panics without a provider. Keep the application's choice; the default is ring.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp()))
}

fn open(info: ConnectionInfo) -> Result<Client, ReplicasError> {
    Client::open(info).map_err(ReplicasError)
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

// ===== impl Connection =====

impl Connection {
    pub(super) async fn query(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        let value = match self {
            Self::Single(connection) => connection.req_packed_command(cmd).await?,
            Self::Cluster(connection) => connection.req_packed_command(cmd).await?,
        };
        value.extract_error()
    }
}
