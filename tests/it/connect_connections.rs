//! The connections of backends without gRPC: HTTP/1.1 that is kept open, in pieces, not read, over TLS.

use std::sync::Arc;
use std::time::Duration;

use duelhub_testkit::{Backend, TestServer, get, push, soon, until};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::calls::certificate;
use crate::connect::{Http1, JSON, TOKEN, assert_error, assert_invalid, request};

#[tokio::test]
async fn requests_that_come_together_are_answered_in_order_and_half_a_one_is_not_waited_for() {
    let short = Duration::from_millis(300);
    let server = TestServer::tuned(&[], |config| config.control.patience.message = short).await;
    let mut http = Http1::connect(server.addresses.control).await;
    let bodies: Vec<_> =
        (1..=20).map(|n| json!({"duelId": 7, "idempotencyKey": n.to_string()})).collect();
    let together: Vec<_> = bodies
        .iter()
        .flat_map(|body| request("PushEvent", JSON, &[], body.to_string().as_bytes()))
        .collect();
    http.send(&together).await;
    for seq in 1..=20 {
        assert_eq!(http.reply().await.json()["position"]["seq"], seq.to_string());
    }
    // Without a length, in chunks: as a proxy may send it on.
    let chunked = "POST /duelhub.v1.ControlService/PushEvent HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n\
                   Transfer-Encoding: chunked\r\n\r\n5\r\n{\"due\r\n7\r\nlId\":7}\r\n0\r\n\r\n";
    http.send(chunked.as_bytes()).await;
    assert_eq!(http.reply().await.json()["position"]["seq"], "21");
    let whole = request("PushEvent", JSON, &[], b"{\"duelId\":8}");
    http.send(&whole[..whole.len() - 3]).await;
    assert_error(&http.reply().await, 504, "deadline_exceeded", "REQUEST_INCOMPLETE", None);
    let mut http = Http1::connect(server.addresses.control).await;
    let head = format!(
        "POST /duelhub.v1.ControlService/PushEvent HTTP/1.1\r\nHost: hub\r\nContent-Type: {JSON}\r\nContent-Length: 5000000\r\n\r\n"
    );
    http.send(head.as_bytes()).await;
    http.send(&vec![b' '; 4_500_000]).await;
    let reply = http.reply().await;
    assert_invalid(&reply, None);
    assert_eq!(reply.header("connection"), Some("close"), "the rest is not read");
    let mut backend = Http1::connect(server.addresses.control).await;
    let unknown = backend.call("GetDuel", &json!({"duelId": 8})).await;
    assert_error(&unknown, 404, "not_found", "DUEL_UNKNOWN", None);
}

#[tokio::test]
async fn as_many_processes_as_come_keep_a_connection_each_and_the_idlest_makes_room() {
    let server = TestServer::with(&[("CONTROL_MAX_CONNECTIONS", "8")]).await;
    let backend = Backend::connect(&server).await;
    backend.push(77, "{}").await;
    let mut processes = Vec::new();
    for _ in 0..30 {
        let mut http = Http1::connect(server.addresses.control).await;
        assert_eq!(http.call("PushEvent", &json!({"duelId": 77})).await.status, 200);
        processes.push(http);
    }
    // The newest seven are there, and whoever was closed comes again.
    for http in processes.iter_mut().rev().take(7) {
        assert_eq!(http.call("PushEvent", &json!({"duelId": 77})).await.status, 200);
    }
    let mut first = processes.remove(0);
    let end = soon("it is closed", first.stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(end.unwrap_or(0), 0);
    assert_eq!(backend.push_event(push(77, "{}")).await.position.unwrap().seq, 39);
}

#[tokio::test]
async fn answers_that_are_not_taken_over_http_1_are_given_up() {
    let tune = |config: &mut duelhub::config::Config| {
        config.control.patience.answer = Duration::from_millis(300);
    };
    let server = TestServer::tuned(&[], tune).await;
    let backend = Backend::connect(&server).await;
    for duel in 1..=1000 {
        backend.open(duel, &[]).await;
    }
    let mut deaf = Http1::connect(server.addresses.control).await;
    // More than what the kernel's buffers take.
    let page = request("ListDuels", JSON, &[], b"{\"pageSize\":1000}");
    deaf.send(&page.repeat(200)).await;
    let line = "duelhub_control_connections_closed_total{reason=\"answers_not_taken\"} 1\n";
    let metrics = async || get(server.addresses.admin, "/metrics", &[]).await.body;
    until("it is given up", async || metrics().await.contains(line)).await;
    assert_eq!(backend.push(1, "{}").await, 1);
}

#[tokio::test]
async fn over_tls_both_versions_are_negotiated() {
    let (_directory, [cert, key]) = certificate();
    let variables =
        [("CONTROL_TLS_CERT", &*cert), ("CONTROL_TLS_KEY", &*key), ("CONTROL_TOKEN", TOKEN)];
    let server = TestServer::with(&variables).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&cert).unwrap()).unwrap();
    for (alpn, chosen) in [(&["http/1.1"][..], "http/1.1"), (&["h2", "http/1.1"], "h2"), (&[], "")]
    {
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots.clone()).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(server.addresses.control).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let negotiated = stream.get_ref().1.alpn_protocol().unwrap_or_default();
        assert_eq!(negotiated, chosen.as_bytes());
        if chosen == "h2" {
            continue;
        }
        let mut http = Http1::new(stream);
        let bearer = format!("Bearer {TOKEN}");
        http.send(&request("GetNode", JSON, &[("Authorization", &bearer)], b"{}")).await;
        assert_eq!(http.reply().await.status, 200);
    }
}
