//! Players and backends who know nothing but nginx, as `deploy/nginx-nodes.conf` has it, while nodes come and go behind it, and
//! one has vanished without a word.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use duelhub::server::Addresses;
use duelhub_testkit::redis_server::RedisServer;
use duelhub_testkit::redis_server::free_port;
use duelhub_testkit::{has_tool, until};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};

use super::chaos::{restart_all, sites, start};

/// An nginx. Killed when it is dropped.
struct Nginx {
    child: Child,
    _directory: TempDir,
    edge: SocketAddr,
    control: SocketAddr,
}

impl Nginx {
    /// With the deployed configuration, but for the addresses.
    async fn start(nodes: [(SocketAddr, SocketAddr); 3]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [edge, control] =
            [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let path = directory.path().display();
        let mut config = include_str!("../../../deploy/nginx-nodes.conf").to_owned();
        let mut put = |what: &str, instead: String| {
            assert!(config.contains(what), "{what}");
            config = config.replace(what, &instead);
        };
        put("/var/log/nginx/", format!("{path}/"));
        put("listen 8080", format!("listen {edge}"));
        put("listen 50051", format!("listen {control}"));
        for ((edge, control), nth) in nodes.into_iter().zip(1..) {
            put(&format!("node{nth}:8090"), edge.to_string());
            put(&format!("node{nth}:50051"), control.to_string());
        }
        let all = format!(
            "worker_processes 1; pid {path}/pid; error_log {path}/log; events {{}}\n\
             http {{\nclient_body_temp_path {path}; proxy_temp_path {path};\n{config}}}"
        );
        fs::write(directory.path().join("nginx.conf"), all).unwrap();
        let child = Command::new("nginx")
            .args(["-p", &path.to_string(), "-c", "nginx.conf", "-g", "daemon off;"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { child, edge, control, _directory: directory };
        until("nginx listens", async || TcpStream::connect(control).is_ok()).await;
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that its workers end with it.
        let pid = self.child.id().to_string();
        let _sent = Command::new("kill").arg(pid).status();
        self.child.wait().unwrap();
    }
}

/// An address from which nothing comes back, not even a refusal.
struct Void {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Void {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let knock = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
        // Who knocks while as many wait as may is not answered.
        let waiting = std::iter::from_fn(|| knock().ok()).collect();
        Self { address, _listener: listener, _waiting: waiting }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_nobody_misses_anything_either() {
    if !has_tool("nginx", "nodes behind nginx") {
        return;
    }
    let redis = RedisServer::start(&[]);
    let sites = sites(&redis, 2);
    let hubs = start(&sites).await;
    let void = Void::new();
    let [one, two] = [0, 1].map(|nth: usize| hubs[nth].addresses);
    let behind = |node: Addresses| (node.edge, node.control);
    let nginx = Nginx::start([behind(one), behind(two), (void.address, void.address)]).await;
    let nginx = Addresses { edge: nginx.edge, control: nginx.control, ..one };
    restart_all(&sites, hubs, [nginx].into()).await;
}
