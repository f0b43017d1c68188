//! The HTTP API on the unix socket: parses calls, hands them to the agent's loop, words the answers.
//!
//! A call that has reached the loop is carried out whole even if its client hangs up: there are no half-made things.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, Extension, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::descriptor;
use super::namespace::Namespace;
use crate::api::{
    self, Connect, Disconnect, ErrorMessage, Leave, NetworkCreate, NodeRevoke, SandboxCreate, TokenCreate,
};
use crate::docker;

/// Longest body of a request, octets.
const MAX_BODY: usize = 1 << 20;
/// Most connections at once.
const MAX_CONNECTIONS: usize = 256;
/// Longest a client takes to send a request's head or body, or a descriptor it announced.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client asks of the agent.
#[derive(Debug)]
pub(crate) enum Call {
    Networks,
    Network(String),
    CreateNetwork(NetworkCreate),
    RemoveNetwork(String),
    Connect { network: String, request: Connect },
    Disconnect { network: String, request: Disconnect },
    Fdb(String),
    Sandboxes,
    Sandbox(String),
    SandboxFiles(String),
    CreateSandbox { request: SandboxCreate, client: Option<u32> },
    RemoveSandbox { name: String, force: bool },
    OpenSandbox(String),
    OpenNetwork(String),
    TakeTap { network: String, sandbox: String },
    Adopt { name: String, namespace: Namespace },
    Keys,
    RotateKeys,
    Status,
    Peers,
    Stats,
    Tokens,
    CreateToken(TokenCreate),
    RevokeToken(String),
    Nodes,
    RemoveNode(String),
    RevokeNode { node: String, request: NodeRevoke },
    Leave(Leave),
    Docker(docker::protocol::Call),
}

/// What the agent answers.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A JSON body.
    Json(StatusCode, Vec<u8>),
    /// No body.
    Done(StatusCode),
    /// An open namespace, for [`Call::OpenSandbox`] and [`Call::OpenNetwork`], or the TAP of [`Call::TakeTap`].
    Descriptor(OwnedFd),
}

/// A refusal or failure, in words for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl ToString) -> Self {
        Self { status, message: message.to_string() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json(self.status, &ErrorMessage { message: self.message })
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Json(status, body) => {
                (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
            }
            Self::Done(status) => status.into_response(),
            Self::Descriptor(_) => StatusCode::NO_CONTENT.into_response(),
        }
    }
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response {
    let body = serde_json::to_vec(value).unwrap_or_default();
    Answer::Json(status, body).into_response()
}

/// A call on its way to the loop.
pub(crate) struct Asked {
    pub(crate) call: Call,
    pub(crate) answer: oneshot::Sender<Result<Answer, Refusal>>,
}

/// The way to the loop.
#[derive(Clone)]
pub(crate) struct Desk(mpsc::Sender<Asked>);

impl Desk {
    pub(crate) fn new(asked: mpsc::Sender<Asked>) -> Self {
        Self(asked)
    }

    pub(crate) async fn ask(&self, call: Call) -> Result<Answer, Refusal> {
        let stopping = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping");
        let (answer, answered) = oneshot::channel();
        self.0.send(Asked { call, answer }).await.map_err(|_| stopping())?;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// Process at the other end of a connection (`SO_PEERCRED`), absent where it is in a PID namespace we cannot see.
#[derive(Debug, Clone, Copy)]
struct Client(Option<u32>);

type Reply = Result<Answer, Refusal>;

/// Binds the API's socket, mode 0660.
///
/// # Errors
/// The path is not to be had.
pub(crate) fn bind(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    if std::fs::metadata(path)?.permissions().mode() & 0o007 != 0 {
        let fault =
            "its file system lets everybody use it, whatever its mode; name another place with --socket";
        return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, fault));
    }
    Ok(listener)
}

/// Serves until dropped.
pub(crate) async fn serve(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    let router = routes(Desk(asked));
    serve_each(&listener, (MAX_CONNECTIONS, PATIENCE), |stream| {
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let client = Client(pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0));
        router.clone().layer(Extension(client))
    })
    .await;
}

/// Serves each connection by what `service` makes for it: at most so many at a time, and none whose request's head takes
/// longer than that to come.
pub(crate) async fn serve_each(
    listener: &UnixListener,
    (most, patience): (usize, Duration),
    service: impl Fn(&UnixStream) -> Router,
) {
    let seats = Arc::new(Semaphore::new(most));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(service(&stream));
        tokio::spawn(async move {
            let _seat = seat;
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(patience);
            // What goes wrong on a connection concerns its client alone.
            let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

fn routes(desk: Desk) -> Router {
    Router::new()
        .route("/networks", get(|State(desk): State<Desk>| async move { desk.ask(Call::Networks).await }))
        .route("/networks/create", post(create_network))
        .route("/networks/{network}", get(network).delete(remove_network))
        .route("/networks/{network}/connect", post(connect))
        .route("/networks/{network}/disconnect", post(disconnect))
        .route("/networks/{network}/fdb", get(fdb))
        .route("/networks/{network}/namespace", post(open_network))
        .route("/networks/{network}/tap", post(take_tap))
        .route("/sandboxes", get(|State(desk): State<Desk>| async move { desk.ask(Call::Sandboxes).await }))
        .route("/sandboxes/create", post(create_sandbox))
        .route("/sandboxes/adopt", post(adopt))
        .route("/sandboxes/{sandbox}", get(sandbox).delete(remove_sandbox))
        .route("/sandboxes/{sandbox}/files", get(sandbox_files))
        .route("/sandboxes/{sandbox}/namespace", post(open_sandbox))
        .route("/keys", get(|State(desk): State<Desk>| async move { desk.ask(Call::Keys).await }))
        .route(
            "/keys/rotate",
            post(|State(desk): State<Desk>| async move { desk.ask(Call::RotateKeys).await }),
        )
        .route("/status", get(|State(desk): State<Desk>| async move { desk.ask(Call::Status).await }))
        .route("/peers", get(|State(desk): State<Desk>| async move { desk.ask(Call::Peers).await }))
        .route("/stats", get(|State(desk): State<Desk>| async move { desk.ask(Call::Stats).await }))
        .route("/tokens", get(|State(desk): State<Desk>| async move { desk.ask(Call::Tokens).await }))
        .route("/tokens/create", post(create_token))
        .route("/tokens/{token}", axum::routing::delete(revoke_token))
        .route("/nodes", get(|State(desk): State<Desk>| async move { desk.ask(Call::Nodes).await }))
        .route("/nodes/{node}", axum::routing::delete(remove_node))
        .route("/nodes/{node}/revoke", post(revoke_node))
        .route("/leave", post(leave))
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "page not found") })
        .method_not_allowed_fallback(|method: Method| async move {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not possible here"))
        })
        .layer(axum::middleware::from_fn(in_time))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(desk)
}

/// Takes a request's body in before anything is done about it; one that does not come is refused.
async fn in_time(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let refuse = |status, text: String| Refusal::new(status, text).into_response();
    match timeout(PATIENCE, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Ok(Err(fault)) => {
            refuse(StatusCode::PAYLOAD_TOO_LARGE, format!("the request cannot be read: {fault}"))
        }
        Err(_) => {
            let waited = PATIENCE.as_secs();
            refuse(StatusCode::REQUEST_TIMEOUT, format!("the request did not come whole in {waited} s"))
        }
    }
}

type Segment = Result<axum::extract::Path<String>, axum::extract::rejection::PathRejection>;
type Octets = Result<Bytes, axum::extract::rejection::BytesRejection>;

fn name(segment: Segment) -> Result<String, Refusal> {
    segment
        .map(|axum::extract::Path(name)| name)
        .map_err(|fault| Refusal::new(fault.status(), fault.body_text()))
}

fn parse<T: DeserializeOwned>(body: Octets) -> Result<T, Refusal> {
    let body = body.map_err(|fault| Refusal::new(fault.status(), fault.body_text()))?;
    serde_json::from_slice(&body).map_err(|fault| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("invalid JSON in the request: {fault}"))
    })
}

async fn create_network(State(desk): State<Desk>, body: Octets) -> Reply {
    desk.ask(Call::CreateNetwork(parse(body)?)).await
}

async fn network(State(desk): State<Desk>, network: Segment) -> Reply {
    desk.ask(Call::Network(name(network)?)).await
}

async fn remove_network(State(desk): State<Desk>, network: Segment) -> Reply {
    desk.ask(Call::RemoveNetwork(name(network)?)).await
}

async fn connect(State(desk): State<Desk>, network: Segment, body: Octets) -> Reply {
    let (network, request) = (name(network)?, parse(body)?);
    desk.ask(Call::Connect { network, request }).await
}

async fn disconnect(State(desk): State<Desk>, network: Segment, body: Octets) -> Reply {
    let (network, request) = (name(network)?, parse(body)?);
    desk.ask(Call::Disconnect { network, request }).await
}

async fn fdb(State(desk): State<Desk>, network: Segment) -> Reply {
    desk.ask(Call::Fdb(name(network)?)).await
}

async fn sandbox(State(desk): State<Desk>, sandbox: Segment) -> Reply {
    desk.ask(Call::Sandbox(name(sandbox)?)).await
}

async fn sandbox_files(State(desk): State<Desk>, sandbox: Segment) -> Reply {
    desk.ask(Call::SandboxFiles(name(sandbox)?)).await
}

async fn create_sandbox(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    body: Octets,
) -> Reply {
    desk.ask(Call::CreateSandbox { request: parse(body)?, client: client.0 }).await
}

async fn create_token(State(desk): State<Desk>, body: Octets) -> Reply {
    desk.ask(Call::CreateToken(parse(body)?)).await
}

async fn revoke_token(State(desk): State<Desk>, token: Segment) -> Reply {
    desk.ask(Call::RevokeToken(name(token)?)).await
}

async fn remove_node(State(desk): State<Desk>, node: Segment) -> Reply {
    desk.ask(Call::RemoveNode(name(node)?)).await
}

async fn revoke_node(State(desk): State<Desk>, node: Segment, body: Octets) -> Reply {
    let (node, request) = (name(node)?, parse(body)?);
    desk.ask(Call::RevokeNode { node, request }).await
}

async fn leave(State(desk): State<Desk>, body: Octets) -> Reply {
    desk.ask(Call::Leave(parse(body)?)).await
}

type Wishes = Result<Query<Options>, axum::extract::rejection::QueryRejection>;

fn wishes(query: Wishes) -> Result<Options, Refusal> {
    query.map(|Query(options)| options).map_err(|fault| Refusal::new(fault.status(), fault.body_text()))
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Options {
    name: String,
    force: bool,
}

async fn remove_sandbox(State(desk): State<Desk>, sandbox: Segment, query: Wishes) -> Reply {
    let force = wishes(query)?.force;
    desk.ask(Call::RemoveSandbox { name: name(sandbox)?, force }).await
}

/// Whether the client asks for the descriptor protocol.
fn wants_descriptor(headers: &HeaderMap) -> Result<(), Refusal> {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(api::UPGRADE_DESCRIPTOR)) {
        return Ok(());
    }
    let needed = format!("this call needs the header Upgrade: {}", api::UPGRADE_DESCRIPTOR);
    Err(Refusal::new(StatusCode::BAD_REQUEST, needed))
}

fn switching() -> Response {
    let upgrade = [(header::UPGRADE, api::UPGRADE_DESCRIPTOR), (header::CONNECTION, "upgrade")];
    (StatusCode::SWITCHING_PROTOCOLS, upgrade, Body::empty()).into_response()
}

/// The bare socket, once the client has been told that protocols switch.
async fn bare(request: Request) -> Option<UnixStream> {
    let upgraded = timeout(PATIENCE, hyper::upgrade::on(request)).await.ok()?.ok()?;
    let parts = upgraded.downcast::<TokioIo<UnixStream>>().ok()?;
    Some(parts.io.into_inner())
}

async fn open_sandbox(
    State(desk): State<Desk>,
    sandbox: Segment,
    request: Request,
) -> Result<Response, Refusal> {
    hand_over(desk, Call::OpenSandbox(name(sandbox)?), request).await
}

async fn open_network(
    State(desk): State<Desk>,
    network: Segment,
    request: Request,
) -> Result<Response, Refusal> {
    hand_over(desk, Call::OpenNetwork(name(network)?), request).await
}

async fn take_tap(
    State(desk): State<Desk>,
    network: Segment,
    query: Wishes,
    request: Request,
) -> Result<Response, Refusal> {
    let (network, sandbox) = (name(network)?, wishes(query)?.name);
    hand_over(desk, Call::TakeTap { network, sandbox }, request).await
}

/// Gives the client the descriptor that `call` opens.
async fn hand_over(desk: Desk, call: Call, request: Request) -> Result<Response, Refusal> {
    wants_descriptor(request.headers())?;
    let Answer::Descriptor(opened) = desk.ask(call).await? else {
        return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the agent gave no descriptor"));
    };
    tokio::spawn(async move {
        if let Some(stream) = bare(request).await {
            // A client that hung up needs none.
            let _ = timeout(PATIENCE, descriptor::send(&stream, opened)).await;
        }
    });
    Ok(switching())
}

async fn adopt(State(desk): State<Desk>, query: Wishes, request: Request) -> Result<Response, Refusal> {
    wants_descriptor(request.headers())?;
    let name = wishes(query)?.name;
    tokio::spawn(async move {
        if let Some(mut stream) = bare(request).await {
            let mut line = receive_and_adopt(&desk, name, &stream).await;
            line.push(b'\n');
            let _ = timeout(PATIENCE, stream.write_all(&line)).await;
        }
    });
    Ok(switching())
}

/// Takes the descriptor a client announced and adopts it; the answer is one line of JSON.
async fn receive_and_adopt(desk: &Desk, name: String, stream: &UnixStream) -> Vec<u8> {
    let received = timeout(PATIENCE, descriptor::receive(stream)).await;
    let outcome = match received {
        Ok(Ok(descriptor)) => adopt_descriptor(desk, name, descriptor).await,
        Ok(Err(fault)) => Err(format!("no namespace was received: {fault}")),
        Err(_) => Err("no namespace was received in time".to_owned()),
    };
    outcome.unwrap_or_else(|message| serde_json::to_vec(&ErrorMessage { message }).unwrap_or_default())
}

async fn adopt_descriptor(desk: &Desk, name: String, descriptor: OwnedFd) -> Result<Vec<u8>, String> {
    let namespace = Namespace::from_descriptor(descriptor).map_err(|fault| explain(&fault))?;
    match desk.ask(Call::Adopt { name, namespace }).await {
        Ok(Answer::Json(_, body)) => Ok(body),
        Ok(_) => Err("the agent gave no answer".to_owned()),
        Err(refusal) => Err(refusal.message),
    }
}

/// An error with all its causes, in one line.
pub(crate) fn explain(fault: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(fault.source(), |cause| cause.source());
    causes.fold(fault.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Removes the socket's file when the agent ends.
#[derive(Debug)]
pub(crate) struct SocketFile(pub(crate) PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
