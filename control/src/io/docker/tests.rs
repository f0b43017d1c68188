//! The client and the watcher against an engine that says what it is told to.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use hyper::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::client::{Client, EngineError};
use super::watch::{News, Watcher};
use crate::docker::engine::Container;

/// Answers by request (`GET /networks`): status line and body.
type Answers = Arc<Mutex<BTreeMap<&'static str, (&'static str, String)>>>;

/// An engine at `socket` that answers so; requests without an answer are of events, and get the
/// pieces, then the end, the last ones first; when there are none any more, nothing, and no end.
fn engine(socket: &Path, answers: Answers, events: Vec<Vec<&'static str>>) {
    let listener = UnixListener::bind(socket).expect("a socket");
    let events = Arc::new(Mutex::new(events));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(answer(stream, Arc::clone(&answers), Arc::clone(&events)));
        }
    });
}

async fn answer(mut stream: UnixStream, answers: Answers, events: Arc<Mutex<Vec<Vec<&'static str>>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request"));
    }
    let head = String::from_utf8(head).expect("text");
    let asked = head.split(" HTTP").next().expect("a request line");
    let known = answers.lock().expect("answers").get(asked).cloned();
    if let Some((status, body)) = known {
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(text.as_bytes()).await.expect("heard");
        return;
    }
    assert!(asked.starts_with("GET /events?"), "{asked}");
    let pieces = { events.lock().expect("events").pop() };
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("heard");
    let Some(pieces) = pieces else { return std::future::pending().await };
    for piece in pieces {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        stream.write_all(chunk.as_bytes()).await.expect("heard");
        stream.flush().await.expect("heard");
    }
    stream.write_all(b"0\r\n\r\n").await.expect("heard");
}

fn answers(all: &[(&'static str, &'static str, &str)]) -> Answers {
    Arc::new(Mutex::new(
        all.iter().map(|&(asked, status, body)| (asked, (status, body.to_owned()))).collect(),
    ))
}

#[tokio::test]
async fn what_an_engine_refuses_is_said_in_its_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("docker.sock");
    let client = Client::new(&socket);
    let away = client.networks().await.expect_err("nobody is there");
    assert!(matches!(away, EngineError::Unreachable { .. }), "{away}");
    let said = answers(&[
        (
            "GET /networks",
            "200 OK",
            r#"[{"Name":"bridge","Id":"1","Driver":"bridge","IPAM":null,"Labels":null}]"#,
        ),
        ("DELETE /networks/1", "403 Forbidden", "{\"message\":\"has active\\nendpoints\"}"),
        ("DELETE /networks/2", "404 Not Found", r#"{"message":"network 2 not found"}"#),
        ("GET /containers/json", "200 OK", "[{"),
    ]);
    engine(&socket, said, Vec::new());
    assert_eq!(client.networks().await.expect("read")[0].name, "bridge");
    client.remove_network("2").await.expect("one that is not there is no fault");
    let refused = client.remove_network("1").await.expect_err("refused");
    assert_eq!(refused.to_string(), "Docker's engine says: has active endpoints");
    assert!(matches!(refused, EngineError::Refused { status: StatusCode::FORBIDDEN, .. }));
    assert!(matches!(client.containers().await, Err(EngineError::Unread(_))));
    let odd = client.remove_network("../containers/1").await.expect_err("no id");
    assert!(matches!(odd, EngineError::Unread(_)), "{odd}");
}

const CONTAINER: &str = r#"{"Id":"c1","Name":"/web","NetworkSettings":{"SandboxKey":"/run/docker/netns/1",
    "Networks":{"app":{"Aliases":["www"],"NetworkID":"n1","EndpointID":"e1"}}}}"#;
const CONNECTED: [&str; 3] = [
    r#"{"Type":"network","Action":"conn"#,
    r#"ect","Actor":{"ID":"n1","Attributes":{"container":"c1","type":"weft"}}}
{"Type":"container","Acti"#,
    "on\":\"die\",\"Actor\":{\"ID\":\"c9\"}}\n",
];

/// News up to the one that is waited for.
async fn until(watcher: &mut Watcher, wanted: impl Fn(&News) -> bool) -> News {
    loop {
        let news = watcher.news.recv().await.expect("news");
        if wanted(&news) {
            return news;
        }
    }
}

#[tokio::test]
async fn everything_is_told_at_first_then_what_happens_and_everything_again_after_the_engine_was_away() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("docker.sock");
    let said = answers(&[
        (
            "GET /networks",
            "200 OK",
            r#"[{"Name":"app","Id":"n1","Driver":"weft"},{"Name":"x","Id":"n2","Driver":"bridge"}]"#,
        ),
        ("GET /networks/n1", "200 OK", r#"{"Id":"n1","Containers":{"c1":{"Name":"web","EndpointID":"e1"}}}"#),
        (
            "GET /containers/json",
            "200 OK",
            r#"[{"Id":"c1","NetworkSettings":{"Networks":{"app":{"NetworkID":"n1","EndpointID":"e1"}}}},
                    {"Id":"c2","NetworkSettings":{"Networks":{"x":{"NetworkID":"n2","EndpointID":"e2"}}}}]"#,
        ),
        ("GET /containers/c1/json", "200 OK", CONTAINER),
    ]);
    let mut watcher = Watcher::start(Client::new(&socket));
    until(&mut watcher, |news| matches!(news, News::Away(_))).await;
    engine(&socket, said, vec![CONNECTED.to_vec()]);

    let networks = until(&mut watcher, |news| matches!(news, News::Networks(_))).await;
    assert!(matches!(&networks, News::Networks(all) if all.len() == 2), "{networks:?}");
    let endpoints = until(&mut watcher, |news| matches!(news, News::Endpoints(_))).await;
    assert!(matches!(&endpoints, News::Endpoints(all) if all.contains("e1")), "{endpoints:?}");
    let running = until(&mut watcher, |news| matches!(news, News::Running(_))).await;
    assert!(
        matches!(&running, News::Running(all) if *all == ["c1".to_owned()].into()),
        "of weft's: {running:?}"
    );
    until(&mut watcher, |news| matches!(news, News::Away(_))).await;
    until(&mut watcher, |news| matches!(news, News::Running(_))).await;
    let container = until(&mut watcher, |news| matches!(news, News::Container(_))).await;
    let web: Container = serde_json::from_str(CONTAINER).expect("a container");
    assert!(matches!(&container, News::Container(there) if *there == web), "{container:?}");
}
