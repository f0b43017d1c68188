use tokio::io::AsyncReadExt;

use super::*;

/// A server whose loop answers every call with its own words; sends them to the test.
async fn server() -> (tempfile::TempDir, PathBuf, mpsc::Receiver<String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("weft.sock");
    let listener = bind(&path).expect("bound");
    let (asked, mut calls) = mpsc::channel::<Asked>(4);
    let (seen, log) = mpsc::channel(64);
    tokio::spawn(serve(listener, asked));
    tokio::spawn(async move {
        while let Some(Asked { call, answer }) = calls.recv().await {
            let reply = match &call {
                Call::OpenSandbox(_) => {
                    Ok(Answer::Descriptor(Namespace::current().expect("everybody has one").into()))
                }
                Call::Network(_) => Err(Refusal::new(StatusCode::NOT_FOUND, "network x not found")),
                _ => Ok(Answer::Json(StatusCode::OK, b"{}".to_vec())),
            };
            seen.send(format!("{call:?}")).await.expect("the test listens");
            // The client may have hung up.
            let _ = answer.send(reply);
        }
    });
    (directory, path, log)
}

async fn say(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    read.expect("the server hangs up").expect("read");
    String::from_utf8(answer).expect("text")
}

fn request(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn calls_reach_the_loop_and_answers_the_client() {
    use std::os::unix::fs::MetadataExt;
    let (_directory, path, mut log) = server().await;
    assert_eq!(std::fs::metadata(&path).expect("it is there").mode() & 0o777, 0o660);
    assert!(say(&path, &request("GET", "/status", "")).await.starts_with("HTTP/1.1 200"));
    assert_eq!(log.recv().await.expect("a call"), "Status");
    let answer = say(&path, &request("GET", "/networks/a%2Fb", "")).await;
    assert!(
        answer.starts_with("HTTP/1.1 404") && answer.ends_with("{\"message\":\"network x not found\"}"),
        "{answer}"
    );
    assert_eq!(log.recv().await.expect("a call"), "Network(\"a/b\")");
}

#[tokio::test]
async fn what_is_no_call_is_refused_in_json() {
    let (_directory, path, mut log) = server().await;
    let big = "x".repeat(MAX_BODY + 1);
    for (method, target, body, status) in [
        ("GET", "/nothing", "", "404"),
        ("PUT", "/status", "", "405"),
        ("POST", "/networks/create", "{", "400"),
        ("POST", "/networks/create", "", "400"),
        ("POST", "/networks/n/connect", "[1]", "400"),
        ("POST", "/networks/create", &big, "413"),
        ("POST", "/sandboxes/web/namespace", "", "400"),
        ("POST", "/sandboxes/adopt?name=x", "", "400"),
    ] {
        let answer = say(&path, &request(method, target, body)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{method} {target}: {answer}");
        assert!(answer.contains("{\"message\":\""), "{method} {target}: {answer}");
    }
    assert!(log.try_recv().is_err(), "none of it reached the loop");
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_its_call() {
    let (_directory, path, mut log) = server().await;
    let mut stream = UnixStream::connect(&path).await.expect("connected");
    stream.write_all(request("POST", "/sandboxes/create", "{}").as_bytes()).await.expect("written");
    let pid = std::process::id();
    let call = log.recv().await.expect("a call");
    assert!(call.contains(&format!("client: Some({pid})")), "{call}");
    drop(stream);
    assert!(say(&path, &request("GET", "/peers", "")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn namespaces_travel_both_ways() {
    let (_directory, path, mut log) = server().await;
    let upgrade = |target: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: weft-descriptor\r\n\r\n"
        )
    };
    let here = Namespace::current().expect("everybody has one");

    let mut stream = UnixStream::connect(&path).await.expect("connected");
    stream.write_all(upgrade("/sandboxes/web/namespace").as_bytes()).await.expect("written");
    switched(&mut stream).await;
    let received = descriptor::receive(&stream).await.expect("a descriptor");
    let received = Namespace::from_descriptor(received).expect("a namespace");
    assert_eq!(received.id().expect("open"), here.id().expect("open"));
    assert_eq!(log.recv().await.expect("a call"), "OpenSandbox(\"web\")");

    let mut stream = UnixStream::connect(&path).await.expect("connected");
    stream.write_all(upgrade("/sandboxes/adopt?name=db").as_bytes()).await.expect("written");
    switched(&mut stream).await;
    descriptor::send(&stream, &here).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert_eq!(answer, "{}\n");
    assert!(log.recv().await.expect("a call").starts_with("Adopt { name: \"db\""));

    let mut stream = UnixStream::connect(&path).await.expect("connected");
    stream.write_all(upgrade("/sandboxes/adopt?name=db").as_bytes()).await.expect("written");
    switched(&mut stream).await;
    stream.write_all(&[0]).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert!(answer.contains("exactly one descriptor"), "{answer}");
}

/// Reads the head that says that protocols switch, and not one octet more.
async fn switched(stream: &mut UnixStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("the head goes on"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
}
