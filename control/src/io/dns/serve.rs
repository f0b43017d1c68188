//! One sandbox's questions.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::doors::{self, Beside, Doors, DoorsError};
use super::{Opened, Service, count, forward, stream};
use crate::io::namespace::Namespace;
use crate::io::server::explain;
use crate::model::SandboxId;
use crate::names::{Asked, Asker, Decision, MAX_QUERY, Outcome, Pace, Transport, View, answer};

/// Questions of one sandbox that other servers are asked at a time.
const FORWARDS: usize = 64;
/// TCP connections of one sandbox at a time.
const CONNECTIONS: usize = 16;
/// After a socket failed, which it has no reason to.
const PAUSE: Duration = Duration::from_millis(100);

/// A sandbox that is served.
pub(super) struct Seat {
    sandbox: SandboxId,
    pub(super) service: Arc<Service>,
    pub(super) namespace: Namespace,
    pace: Mutex<Pace>,
    forwards: Arc<Semaphore>,
    pub(super) connections: Arc<Semaphore>,
}

/// What is to be sent back, or asked of whom.
pub(super) enum Next {
    Reply(Vec<u8>),
    Forward(Asked, Question),
    Nothing,
}

/// A question on its way to other servers: who asks, and what was known when it was asked.
pub(super) struct Question {
    pub(super) view: Arc<View>,
    pub(super) asker: Arc<Asker>,
    _seats: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// Opens a sandbox's sockets, tells of it, and serves until it is aborted.
pub(super) async fn serve(
    service: Arc<Service>,
    sandbox: SandboxId,
    (namespace, beside): (Namespace, Beside),
    opened: Opened,
) {
    let opening = tokio::task::spawn_blocking(move || {
        let doors = doors::open(&namespace, beside);
        (namespace, doors)
    });
    let Ok((namespace, doors)) = opening.await else { return };
    let Doors { udp, tcp, how } = match doors {
        Ok(doors) => doors,
        Err(fault) => return opened(Err(fault)),
    };
    let sockets = UdpSocket::from_std(udp).and_then(|udp| Ok((udp, TcpListener::from_std(tcp)?)));
    let (udp, tcp) = match sockets {
        Ok(sockets) => sockets,
        Err(fault) => return opened(Err(DoorsError::Listen(fault))),
    };
    opened(Ok(how));
    let seat = Arc::new(Seat {
        sandbox,
        service,
        namespace,
        pace: Mutex::new(Pace::new(Instant::now())),
        forwards: Arc::new(Semaphore::new(FORWARDS)),
        connections: Arc::new(Semaphore::new(CONNECTIONS)),
    });
    tokio::join!(serve_datagrams(Arc::clone(&seat), udp), stream::serve(seat, tcp));
}

/// A generator for the order of addresses.
pub(super) fn generator() -> StdRng {
    let mut seed = [0; 32];
    if let Err(fault) = getrandom::fill(&mut seed) {
        tracing::warn!(fault = explain(&fault), "addresses of a name come in a predictable order");
    }
    StdRng::from_seed(seed)
}

async fn serve_datagrams(seat: Arc<Seat>, socket: UdpSocket) {
    let (socket, mut rng) = (Arc::new(socket), generator());
    let mut forwards = JoinSet::new();
    // One octet more than is looked at, so that a longer query is known for one.
    let mut buffer = vec![0; MAX_QUERY + 1];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            Some(_) = forwards.join_next() => continue,
        };
        let Ok((length, from)) = received else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        seat.wait_for_turn().await;
        match seat.judge(&buffer[..length], Transport::Udp, &mut rng) {
            Next::Reply(reply) => send(&socket, &reply, from).await,
            Next::Nothing => {}
            Next::Forward(asked, question) => {
                let (seat, socket, octets) =
                    (Arc::clone(&seat), Arc::clone(&socket), buffer[..length].to_vec());
                forwards.spawn(async move {
                    let reply = forward::ask(&seat, &asked, &question, &octets, Transport::Udp).await;
                    send(&socket, &reply, from).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    // Who asked and does not listen any more asks again if it matters.
    let _ = socket.send_to(reply, to).await;
}

impl Seat {
    /// Holds back a sandbox that asks too fast; its further questions wait in the kernel, or are lost there.
    pub(super) async fn wait_for_turn(&self) {
        let wait = self.pace.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        if !wait.is_zero() {
            count(&self.service.counters.delayed);
            tokio::time::sleep(wait).await;
        }
    }

    /// Decides about a query, and counts it.
    pub(super) fn judge(&self, octets: &[u8], transport: Transport, rng: &mut StdRng) -> Next {
        let counters = &self.service.counters;
        count(&counters.queries);
        let view = Arc::clone(&self.service.view.borrow());
        let Some(asker) = view.askers.get(&self.sandbox).map(Arc::clone) else {
            count(&counters.dropped);
            return Next::Nothing;
        };
        match answer(&view, &asker, octets, transport, rng) {
            Decision::Drop => {
                count(&counters.dropped);
                Next::Nothing
            }
            Decision::Reply(reply, outcome) => {
                count(match outcome {
                    Outcome::Answered => &counters.answered,
                    Outcome::NoData => &counters.no_data,
                    Outcome::NoName => &counters.no_name,
                    Outcome::Refused => &counters.refused,
                });
                Next::Reply(reply)
            }
            Decision::Forward(asked) => self.hand_on(asked, view, asker),
        }
    }

    /// Within the bounds of this sandbox and of all together.
    fn hand_on(&self, asked: Asked, view: Arc<View>, asker: Arc<Asker>) -> Next {
        let own = Arc::clone(&self.forwards).try_acquire_owned();
        let all = own.and_then(|own| Ok((own, Arc::clone(&self.service.forwards).try_acquire_owned()?)));
        let Ok(seats) = all else {
            count(&self.service.counters.forward_overflows);
            return Next::Reply(asked.refused());
        };
        count(&self.service.counters.forwarded);
        Next::Forward(asked, Question { view, asker, _seats: seats })
    }
}
