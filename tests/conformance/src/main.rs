//! The server that Connect's conformance suite tests: its service behind duelhub's control plane, as every call passes it.
//!
//! What to serve comes on standard input, and where it is served goes to standard output: both as a length of four bytes and a
//! message. The service speaks gRPC, as the services of the control plane do.

mod service;

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::anyhow;
use duelhub::config::{Config, ControlTls};
use duelhub::control::{Control, Others};
use duelhub::engine::MemoryEngine;
use duelhub::hub::Hub;
use duelhub::metrics::Metrics;
use duelhub::ticket::Tickets;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::pb::{ServerCompatRequest, ServerCompatResponse};
use self::service::Conformance;

mod pb {
    #![expect(
        missing_docs,
        clippy::all,
        clippy::doc_markdown,
        clippy::str_to_string,
        clippy::too_long_first_doc_paragraph,
        reason = "generated"
    )]
    include!(concat!(env!("OUT_DIR"), "/connectrpc.conformance.v1.rs"));
}

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut input = tokio::io::stdin();
    let mut request = vec![0; usize::try_from(input.read_u32().await?)?];
    input.read_exact(&mut request).await?;
    let request = ServerCompatRequest::decode(&*request)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let response = ServerCompatResponse {
        host: Ipv4Addr::LOCALHOST.to_string(),
        port: listener.local_addr()?.port().into(),
        pem_cert: request.server_creds.as_ref().map(|tls| tls.cert.clone()).unwrap_or_default(),
    };
    let serving = control(request)?.serve(listener, others())?;
    let response = response.encode_to_vec();
    let mut output = tokio::io::stdout();
    output.write_u32(u32::try_from(response.len())?).await?;
    output.write_all(&response).await?;
    output.flush().await?;
    serving.await;
    Ok(())
}

fn others() -> Others {
    Others { routes: Routes::new(Conformance), descriptors: DESCRIPTORS }
}

/// A control plane as the suite wants it, with room for all of its connections.
fn control(request: ServerCompatRequest) -> anyhow::Result<Arc<Control>> {
    let variable = |name: &str| (name == "CONTROL_MAX_CONNECTIONS").then(|| "1000".to_owned());
    let mut config = Config::read(&variable).map_err(|problems| anyhow!("{problems:?}"))?;
    config.control.tls = request.server_creds.map(|tls| ControlTls {
        cert: tls.cert,
        key: tls.key,
        client_ca: Some(request.client_tls_cert).filter(|cert| !cert.is_empty()),
    });
    let metrics = Arc::new(Metrics::new());
    let engine = Arc::new(MemoryEngine::new(config.engine));
    let hub = Hub::new(engine, config.hub, Arc::clone(&metrics));
    let tickets = Arc::new(Tickets::new(&config.tickets));
    let stop = CancellationToken::new();
    Ok(Control::new(config.control, hub, tickets, metrics, Vec::new(), stop))
}
