//! Redis over TLS, by the real binary: its certificate is checked against the system's authorities.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::chaos::ready;
use super::site::Site;
use crate::redis_server::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_reached_over_tls_if_its_certificate_is_right() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &authority).unwrap();
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    std::fs::write(path("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (certificate, key, authority) = (path("cert.pem"), path("key.pem"), path("ca.pem"));
    let port_text = port.to_string();
    let _redis = RedisServer::start(&[
        "--tls-port",
        &port_text,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &authority,
        "--tls-auth-clients",
        "no",
    ]);
    let site = || {
        let site = Site::new().with("ENGINE", "redis");
        site.with("REDIS_URL", format!("rediss://localhost:{port}"))
    };
    let trusting = site().with("SSL_CERT_FILE", authority.clone()).start().await;
    ready(&trusting).await;
    let distrusting = site().with("SSL_CERT_FILE", certificate.clone()).start().await;
    let away = async {
        while !distrusting.output().contains("Redis is away") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    super::soon("refused", away).await;
    assert_eq!(super::http::get(distrusting.addresses.admin, "/readyz", &[]).await.status, 503);
    assert_eq!(super::http::get(distrusting.addresses.admin, "/healthz", &[]).await.status, 200);
}
