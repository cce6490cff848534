//! Redis over TLS, by the real binary: its certificate is checked against the system's authorities.

use std::fs;

use duelhub_testkit::redis_server::{RedisServer, free_port};
use duelhub_testkit::redis_topology::Sentinel;
use duelhub_testkit::{Hub, Site, get, is_ready, until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

/// An authority, and what a Redis needs that it vouches for as `localhost`.
struct Trust {
    directory: TempDir,
    port: u16,
}

impl Trust {
    fn new() -> Self {
        let trust = Self { directory: tempfile::tempdir().unwrap(), port: free_port() };
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = server.signed_by(&key, &authority).unwrap();
        fs::write(trust.path("ca.pem"), authority.pem()).unwrap();
        fs::write(trust.path("cert.pem"), certificate.pem()).unwrap();
        fs::write(trust.path("key.pem"), key.serialize_pem()).unwrap();
        trust
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// What a Redis is started with, so that `port` is one for TLS.
    fn options(&self, port: u16) -> Vec<String> {
        [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", self.path("cert.pem")),
            ("--tls-key-file", self.path("key.pem")),
            ("--tls-ca-cert-file", self.path("ca.pem")),
            ("--tls-auth-clients", "no".to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }

    fn redis(&self, more: &[&str]) -> RedisServer {
        let options = self.options(self.port);
        let options = options.iter().map(String::as_str).chain(more.iter().copied());
        RedisServer::start(&options.collect::<Vec<_>>())
    }

    /// A hub that trusts in what a file says.
    async fn hub(&self, url: &str, trusted: &str) -> Hub {
        let site = Site::new().with("ENGINE", "redis").with("REDIS_URL", url);
        site.with("SSL_CERT_FILE", self.path(trusted)).start().await
    }
}

/// The hub finds no Redis that it trusts.
async fn is_away(hub: &Hub) {
    until("refused", async || hub.output().contains("Redis is away")).await;
    assert_eq!(get(hub.addresses.admin, "/readyz", &[]).await.status, 503);
    assert_eq!(get(hub.addresses.admin, "/healthz", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_reached_over_tls_if_its_certificate_is_right() {
    let trust = Trust::new();
    let _redis = trust.redis(&[]);
    let url = format!("rediss://localhost:{}", trust.port);
    is_ready(&trust.hub(&url, "ca.pem").await).await;
    is_away(&trust.hub(&url, "cert.pem").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_reached_over_tls() {
    let trust = Trust::new();
    let bus = free_port().to_string();
    let options = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--tls-cluster", "yes"];
    let redis = trust.redis(&options);
    redis.ask("CLUSTER ADDSLOTSRANGE 0 16383").unwrap();
    let url = format!("rediss+cluster://localhost:{}", trust.port);
    is_ready(&trust.hub(&url, "ca.pem").await).await;
    is_away(&trust.hub(&url, "cert.pem").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_their_master_are_reached_over_tls() {
    let trust = Trust::new();
    let _redis = trust.redis(&["--tls-replication", "yes", "--requirepass", "secret"]);
    let port = free_port();
    let options = trust.options(port);
    let settings: String =
        options.chunks(2).map(|o| format!("{} {}\n", &o[0][2..], o[1])).collect();
    let _sentinel = Sentinel::with(
        port,
        &format!(
            "port 0\n{settings}tls-replication yes\nrequirepass secret\n\
         sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n\
         sentinel monitor game localhost {} 1\nsentinel auth-pass game secret\n",
            trust.port
        ),
    );
    let url = format!("rediss+sentinel://:secret@localhost:{port}/game");
    is_ready(&trust.hub(&url, "ca.pem").await).await;
    is_away(&trust.hub(&url, "cert.pem").await).await;
}
