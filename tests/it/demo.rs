//! The demo page's side of the hub: its files, its way to the control plane, and how a browser gets there.

use std::net::SocketAddr;

use duelhub_testkit::{Backend, Join, Player, Reply, TestServer, exchange, get};
use serde_json::{Value, json};

/// What a browser says when somebody types an address.
const BROWSER: (&str, &str) = ("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8");

const PRODUCTION: [(&str, &str); 2] =
    [("APP_ENV", "production"), ("WEBAPP_URL", "https://a.example")];

/// Posts to the page's way to the control plane, with these further headers.
async fn post(edge: SocketAddr, name: &str, kind: &str, headers: &str, body: &Value) -> Reply {
    let body = body.to_string();
    let head = format!(
        "POST /demo/api/{name} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nContent-Type: {kind}\r\n{headers}"
    );
    exchange(edge, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await
}

/// The JSON of an answer in chunks, if it has some.
fn json_of(reply: &Reply) -> Value {
    let (start, end) = (reply.body.find('{').unwrap(), reply.body.rfind('}').unwrap());
    serde_json::from_str(&reply.body[start..=end]).unwrap()
}

#[tokio::test]
async fn it_is_served_in_development_alone() {
    let development = TestServer::start().await;
    let edge = development.addresses.edge;
    let page = get(edge, "/demo/", &[]).await;
    assert!(page.status == 200 && page.body.contains("<html"));
    assert_eq!(get(edge, "/demo", &[]).await.status, 308);
    for missing in ["/demo/src/nothing.js", "/demo/docs/nothing.md"] {
        assert_eq!(get(edge, missing, &[]).await.status, 404, "{missing}");
    }
    let production = TestServer::with(&PRODUCTION).await;
    for path in ["/demo/", "/demo/docs/README.md"] {
        assert_eq!(get(production.addresses.edge, path, &[]).await.status, 404, "{path}");
    }
    let answer = post(production.addresses.edge, "duel", "application/json", "", &json!({})).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn the_root_leads_a_browser_to_the_page_and_is_a_websocket_for_everybody_else() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let edge = server.addresses.edge;
    let led = get(edge, "/", &[BROWSER]).await;
    assert_eq!((led.status, led.header("location")), (307, Some("/demo/")));
    assert_eq!(get(edge, "/?ticket=x", &[BROWSER]).await.status, 307);
    for (path, headers) in [
        ("/", vec![]),
        ("/", vec![("Accept", "*/*")]),
        ("/", vec![("Accept", "application/json, text/htmlx")]),
        // Somebody's proxy does not pass Upgrade on: the page would hide that.
        ("/", vec![BROWSER, ("Upgrade", "websocket")]),
        ("/ws", vec![BROWSER]),
    ] {
        assert_eq!(get(edge, path, &headers).await.status, 426, "{path} {headers:?}");
    }
    let head = format!(
        "HEAD / HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{}: {}\r\n\r\n",
        BROWSER.0, BROWSER.1
    );
    assert_eq!(exchange(edge, &head).await.status, 405);
    let ticket = backend.ticket(77, 1).await;
    Player::join(&server, Join { path: Some("/"), ..Join::ticket(ticket) }).await;

    let production = TestServer::with(&PRODUCTION).await;
    assert_eq!(get(production.addresses.edge, "/", &[BROWSER]).await.status, 426);
}

#[tokio::test]
async fn a_call_of_the_page_is_a_call_of_the_control_plane() {
    let server = TestServer::with(&[("CONTROL_TOKEN", "a token of the backend's")]).await;
    let (edge, control) = (server.addresses.edge, server.addresses.control);
    let json = "application/json";
    let first = json_of(&post(edge, "duel", json, "", &json!({})).await);
    let expected = json!({"duelId": 77, "players": [1001, 1002], "control": control.to_string(), "tokenNeeded": true});
    assert_eq!(first, expected);
    let second = json_of(&post(edge, "duel", json, "", &json!({})).await);
    assert_ne!(second["duelId"], 77, "two pages do not disturb each other");

    let request = json!({"duelId": 77, "payload": {"question": "What?"}});
    let id = "X-Request-Id: 00112233445566aa\r\n";
    let pushed = post(edge, "PushEvent", json, id, &request).await;
    assert_eq!((pushed.status, pushed.header("content-type")), (200, Some(json)), "{pushed:?}");
    assert_eq!(json_of(&pushed)["position"]["seq"], "1");
    let timing = pushed.header("server-timing").unwrap();
    assert!(timing.starts_with("call;dur=") && timing[9..].parse::<f64>().is_ok(), "{timing}");
    assert_eq!(pushed.header("x-request-id"), Some("00112233445566aa"));
    let backend = Backend::with_token(&server, "a token of the backend's");
    assert_eq!(backend.duel(77).await.position.unwrap().seq, 1);

    // What the control plane refuses is refused in its own words, under the same id.
    let refused = post(edge, "PushEvent", json, id, &json!({"duelId": 77, "type": "pong"})).await;
    assert_eq!(
        (refused.status, json_of(&refused)["code"].as_str()),
        (400, Some("invalid_argument"))
    );
    assert!(refused.body.contains("00112233445566aa"), "{refused:?}");
}

#[tokio::test]
async fn a_page_of_another_origin_and_a_call_that_the_page_does_not_make_are_refused() {
    let server = TestServer::start().await;
    let edge = server.addresses.edge;
    let request = json!({"duelId": 77});
    // What a browser sends without asking first.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "text/plain; application/json"]
    {
        assert_eq!(post(edge, "PushEvent", kind, "", &request).await.status, 415, "{kind}");
    }
    for name in ["Disconnect", "RevokeTickets", "ListDuels", "pushEvent", "..%2FPushEvent"] {
        assert_eq!(post(edge, name, "application/json", "", &request).await.status, 404, "{name}");
    }
    let preflight = "OPTIONS /demo/api/PushEvent HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\
        Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n";
    let answer = exchange(edge, preflight).await;
    assert!(answer.status == 405 && answer.header("access-control-allow-origin").is_none());
    assert_eq!(
        Backend::connect(&server).await.try_duel(77).await.unwrap_err().code(),
        tonic::Code::NotFound
    );
}

#[tokio::test]
async fn a_document_is_a_page_for_a_browser_and_a_text_for_everybody_else() {
    let server = TestServer::start().await;
    let edge = server.addresses.edge;
    let text = get(edge, "/demo/docs/README.md", &[]).await;
    assert!(text.body.starts_with("# duelhub"));
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    let page = get(edge, "/demo/docs/README.md", &[BROWSER]).await;
    assert!(page.body.starts_with("<!doctype html>"));
    assert_eq!(page.header("vary"), Some("accept"));
}
