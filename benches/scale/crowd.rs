//! Members with many endpoints and no dataplane: the whole control plane of each, on sockets of its own, all in one
//! thread of this process.
//!
//! Agents cannot tell them from others. Each makes one network with a subnet of its own, and endpoints in it that no
//! kernel knows of.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use weft_control::api::{Ipam, IpamConfig, NetworkCreate};
use weft_control::cluster::{Attach, Cluster, ClusterConfig, ClusterEvent, Timing};
use weft_control::gossip::{Transmit, Via};
use weft_control::io::joining;
use weft_control::io::namespace::Namespace;
use weft_control::model::{NetworkId, SandboxId};
use weft_control::storage::Memory;
use weft_control::timestamp::UnixMillis;
use weft_control::trust::{Settings, Token};

/// Port of gossip.
const PORT: u16 = 7946;
/// Endpoints that are attached before other work is looked at.
const STEP: usize = 20;

/// Where members of a crowd are.
pub(crate) fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 100 + number)
}

/// The network of a member.
pub(crate) fn network(number: u8) -> String {
    format!("crowd{number}")
}

/// So many members; they end with this process.
pub(crate) struct Crowd {
    wanted: Vec<UnboundedSender<usize>>,
}

impl Crowd {
    /// Has `count` members join by the token in a namespace that has their addresses.
    pub(crate) fn gather(namespace: &Namespace, count: u8, token: Token) -> Result<Self> {
        let namespace = namespace.try_clone()?;
        let (told, joined) = std::sync::mpsc::channel();
        thread::Builder::new().name("crowd".to_owned()).spawn(move || {
            let outcome = namespace.enter().context("enter a namespace").and_then(|()| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let mut wanted = Vec::new();
                    for number in 0..count {
                        wanted.push(enter(number, &token).await?);
                    }
                    // Whoever asked may be gone.
                    let _ = told.send(Ok(wanted));
                    std::future::pending::<Result<()>>().await
                })
            });
            outcome.map_err(|fault| told.send(Err(fault)))
        })?;
        let wanted = joined.recv().map_err(|_| anyhow!("the crowd is gone"))??;
        Ok(Self { wanted })
    }

    /// Has each member have so many endpoints in all.
    pub(crate) fn grow(&self, endpoints: usize) {
        for member in &self.wanted {
            // One that has failed has said so.
            let _ = member.send(endpoints);
        }
    }
}

/// Makes a member and has it run.
async fn enter(number: u8, token: &Token) -> Result<UnboundedSender<usize>> {
    let at = SocketAddr::new(IpAddr::V4(address(number)), PORT);
    let store = Arc::new(Memory::default());
    let settings =
        Settings { name: format!("m{number}").parse()?, advertise: at.ip().to_string(), gossip_port: PORT };
    joining::join(&*store, token, settings.clone(), &mut |_| {}).await.context("join")?;
    let config = ClusterConfig {
        name: settings.name,
        advertise: at,
        data_port: 4789,
        underlay_mtu: 1500,
        require_encryption: false,
        timing: Timing::default(),
    };
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let wall = UnixMillis(u64::try_from(wall)?);
    let mut cluster = Cluster::start(config, store, [number; 32], Instant::now(), wall)?;
    cluster.join(Instant::now(), token.seeds());
    let subnet = format!("10.{}.0.0/16", 100 + number);
    let config = vec![IpamConfig { subnet, ..IpamConfig::default() }];
    let request = NetworkCreate {
        name: network(number),
        driver: "overlay".to_owned(),
        ipam: Ipam { driver: "default".to_owned(), options: None, config },
        ..NetworkCreate::default()
    };
    let network = cluster.create_network(Instant::now(), request)?;
    let (wanted, asked) = unbounded_channel();
    let sockets = (UdpSocket::bind(at).await?, TcpListener::bind(at).await?);
    let member = Member { number, cluster, network, endpoints: 0, goal: 0 };
    tokio::spawn(member.run(sockets, asked));
    Ok(wanted)
}

struct Member {
    number: u8,
    cluster: Cluster,
    network: NetworkId,
    endpoints: usize,
    goal: usize,
}

impl Member {
    async fn run(mut self, sockets: (UdpSocket, TcpListener), mut asked: UnboundedReceiver<usize>) {
        let (datagrams, connections) = sockets;
        let (heard, mut messages) = unbounded_channel();
        let mut buffer = [0; 2048];
        loop {
            self.attach_some();
            self.send_all(&datagrams);
            let growing = self.endpoints < self.goal;
            let due = self.cluster.poll_timeout().unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
            let due = if growing { Instant::now() + Duration::from_millis(1) } else { due };
            tokio::select! {
                Ok((len, from)) = datagrams.recv_from(&mut buffer) =>
                    self.cluster.handle_datagram(Instant::now(), from, &mut buffer[..len]),
                Ok((stream, from)) = connections.accept() =>
                    drop(tokio::spawn(receive(stream, from, heard.clone()))),
                Some((from, mut message)) = messages.recv() =>
                    drop(self.cluster.handle_stream(Instant::now(), from, &mut message)),
                Some(goal) = asked.recv() => self.goal = goal,
                () = tokio::time::sleep_until(due.into()) => self.cluster.handle_timeout(Instant::now()),
            }
        }
    }

    fn attach_some(&mut self) {
        for _ in 0..STEP.min(self.goal - self.endpoints.min(self.goal)) {
            self.endpoints += 1;
            let number = (self.endpoints as u128) << 8 | u128::from(self.number) | 1 << 127;
            let Ok(name) = format!("c{}-{}", self.number, self.endpoints).parse() else { return };
            let wish = Attach {
                network: self.network,
                sandbox: SandboxId(number.to_be_bytes()),
                name,
                ip4: None,
                ip6: None,
                mac: None,
                aliases: Vec::new(),
            };
            if let Err(fault) = self.cluster.attach(Instant::now(), wish) {
                let _ = crate::environment::say(&format!("member {}: {fault}", self.number));
                self.goal = 0;
            }
        }
        while let Some(event) = self.cluster.poll_event() {
            if let ClusterEvent::Attached { result, .. } = event {
                let announced =
                    result.and_then(|lease| self.cluster.announce(Instant::now(), lease.endpoint));
                if let Err(fault) = announced {
                    let _ = crate::environment::say(&format!("member {}: {fault}", self.number));
                }
            }
        }
    }

    fn send_all(&mut self, datagrams: &UdpSocket) {
        while let Some(Transmit { to, via, bytes }) = self.cluster.poll_transmit() {
            match via {
                // What there is no room for is lost, as anywhere.
                Via::Datagram => drop(datagrams.try_send_to(&bytes, to)),
                Via::Stream => drop(tokio::spawn(send(to, IpAddr::V4(address(self.number)), bytes))),
            }
        }
    }
}

/// Sends one message over a connection of its own.
async fn send(to: SocketAddr, from: IpAddr, message: Vec<u8>) -> Result<()> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let mut stream = socket.connect(to).await?;
    stream.write_all(&u32::try_from(message.len())?.to_be_bytes()).await?;
    stream.write_all(&message).await?;
    Ok(stream.shutdown().await?)
}

/// Reads messages until the connection ends.
async fn receive(mut stream: TcpStream, from: SocketAddr, heard: UnboundedSender<(SocketAddr, Vec<u8>)>) {
    while let Ok(length) = stream.read_u32().await {
        let mut message = vec![0; length as usize];
        if stream.read_exact(&mut message).await.is_err() || heard.send((from, message)).is_err() {
            return;
        }
    }
}
