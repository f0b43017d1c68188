//! Answers DHCP and router solicitations on the bridges of networks that have that: a packet socket and a task each.
//!
//! The bridge is where a question comes by, since it is a broadcast, and where an answer leaves by the one port that the
//! asker's address is pinned to. Packet sockets need no address on the bridge, which an overlay's has not.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send};
use socket2::SockFilter;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weft_dataplane::io::open_packet_socket;

use crate::dhcp::{LONGEST, Service, respond, unsolicited};
use crate::model::NetworkId;

/// Questions answered in a row, and the pause after so many: what a flood comes to.
const BATCH: usize = 32;
const PAUSE: Duration = Duration::from_millis(50);
/// How often ways out are told of without being asked for.
const REFRESH: Duration = Duration::from_secs(600);

/// Classic BPF (`linux/filter.h`): load a half-word or an octet, at a place or behind an IPv4 header, compare, give back.
const HALF: u16 = 0x28;
const OCTET: u16 = 0x30;
const BEHIND_IPV4: u16 = 0xb1;
const HALF_BEHIND: u16 = 0x48;
const IS: u16 = 0x15;
const HAS: u16 = 0x45;
const GIVE: u16 = 0x06;

/// Takes UDP to ports 67 and 547 and router solicitations, whole and without extension headers.
const QUESTIONS: [SockFilter; 19] = [
    SockFilter::new(HALF, 0, 0, 12),
    SockFilter::new(IS, 0, 7, 0x0800),
    SockFilter::new(OCTET, 0, 0, 23),
    SockFilter::new(IS, 0, 14, 17),
    SockFilter::new(HALF, 0, 0, 20),
    SockFilter::new(HAS, 12, 0, 0x1fff),
    SockFilter::new(BEHIND_IPV4, 0, 0, 14),
    SockFilter::new(HALF_BEHIND, 0, 0, 16),
    SockFilter::new(IS, 8, 9, 67),
    SockFilter::new(IS, 0, 8, 0x86dd),
    SockFilter::new(OCTET, 0, 0, 20),
    SockFilter::new(IS, 0, 2, 17),
    SockFilter::new(HALF, 0, 0, 56),
    SockFilter::new(IS, 3, 4, 547),
    SockFilter::new(IS, 0, 3, 58),
    SockFilter::new(OCTET, 0, 0, 54),
    SockFilter::new(IS, 0, 1, 133),
    SockFilter::new(GIVE, 0, 0, 0xffff),
    SockFilter::new(GIVE, 0, 0, 0),
];

/// Opens the socket for questions on a bridge, in the calling thread's network namespace.
///
/// # Errors
/// No such bridge, or not permitted.
pub(crate) fn listen(bridge: &str) -> io::Result<OwnedFd> {
    open_packet_socket(bridge, &QUESTIONS)
}

/// Networks that are served.
#[derive(Debug, Default)]
pub(crate) struct Dhcp(BTreeMap<NetworkId, Served>);

#[derive(Debug)]
struct Served {
    told: watch::Sender<Arc<Service>>,
    /// Absent while its socket is being opened.
    task: Option<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Dhcp {
    /// Ends the service of networks that are not to be kept.
    pub(crate) fn keep(&mut self, wanted: impl Fn(NetworkId) -> bool) {
        self.0.retain(|network, _| wanted(*network));
    }

    /// Tells what to answer with from now on; false where a socket for it is to be opened.
    pub(crate) fn tell(&mut self, network: NetworkId, service: Service) -> bool {
        let service = Arc::new(service);
        let ended = |served: &Served| served.task.as_ref().is_some_and(JoinHandle::is_finished);
        if let Some(served) = self.0.get(&network).filter(|served| !ended(served)) {
            served.told.send_replace(service);
            return true;
        }
        self.0.insert(network, Served { told: watch::channel(service).0, task: None });
        false
    }

    /// Answers by a socket that was opened for a network, unless the network has gone meanwhile.
    ///
    /// # Errors
    /// The socket cannot be waited for.
    pub(crate) fn serve(&mut self, network: NetworkId, socket: OwnedFd) -> io::Result<()> {
        if let Some(served) = self.0.get_mut(&network) {
            // By this type tokio knows any socket of datagrams that is open already.
            let socket = UdpSocket::from_std(socket.into())?;
            served.task = Some(tokio::spawn(answer(socket, served.told.subscribe())));
        }
        Ok(())
    }
}

/// Answers until the bridge is gone.
async fn answer(socket: UdpSocket, told: watch::Receiver<Arc<Service>>) {
    let (mut refresh, mut left, mut buffer) = (tokio::time::interval(REFRESH), BATCH, [0; LONGEST]);
    loop {
        // What is longer than any question is cut, and then none.
        let received = tokio::select! {
            received = socket.recv(&mut buffer) => received,
            _ = refresh.tick() => {
                let service = Arc::clone(&told.borrow());
                unsolicited(&service).for_each(|frame| say(&socket, &frame));
                continue;
            }
        };
        let Ok(length) = received else { return };
        let service = Arc::clone(&told.borrow());
        respond(&service, &buffer[..length]).into_iter().for_each(|answer| say(&socket, &answer));
        left -= 1;
        if left == 0 {
            left = BATCH;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Sends a frame. One that finds no room is lost, and will be asked for again.
fn say(socket: &UdpSocket, frame: &[u8]) {
    let _ =
        socket.try_io(Interest::WRITABLE, || Ok(send(socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?));
}
