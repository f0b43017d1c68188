use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::*;
use crate::publish::Port;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn published(protocol: Protocol, host_port: u16) -> Published {
    Published { port: Port { number: 80, protocol }, host: HERE, host_port }
}

/// A free port of the host: the system's choice, let go.
fn free(protocol: Protocol) -> Published {
    let port = match protocol {
        Protocol::Udp => UdpSocket::bind((HERE, 0)).and_then(|socket| socket.local_addr()),
        _ => TcpListener::bind((HERE, 0)).and_then(|socket| socket.local_addr()),
    };
    published(protocol, port.expect("a port").port())
}

fn relayed(protocol: Protocol, target: SocketAddr) -> (Relay, SocketAddr) {
    let (mut relay, published) = (Relay::default(), free(protocol));
    let held = hold(&published).expect("it is free");
    relay.serve(published, held, target).expect("a thread");
    (relay, (HERE, published.host_port).into())
}

#[test]
fn a_held_port_is_nobody_elses_and_one_in_use_is_not_held() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let published = free(protocol);
        let held = hold(&published).expect("it is free");
        let refused = hold(&published).expect_err("it is held").to_string();
        let address = SocketAddr::new(HERE, published.host_port);
        assert_eq!(refused, format!("failed to bind host port {address}/{protocol}: address already in use"));
        drop(held);
        hold(&published).expect("it is free again");
    }
    let elsewhere = Published { host: [192, 0, 2, 77].into(), ..published(Protocol::Tcp, 8080) };
    let refused = hold(&elsewhere).expect_err("not an address of this host").to_string();
    assert_eq!(refused, "failed to bind host port 192.0.2.77:8080/tcp: cannot assign requested address");
}

#[test]
fn each_direction_of_a_connection_ends_for_itself() {
    let sandbox = TcpListener::bind((HERE, 0)).expect("a port");
    let (_relay, port) = relayed(Protocol::Tcp, sandbox.local_addr().expect("bound"));
    let mut client = TcpStream::connect(port).expect("it listens");
    client.write_all(b"question").expect("sent");
    client.shutdown(Shutdown::Write).expect("half closed");
    let (mut served, _) = sandbox.accept().expect("relayed");
    let (mut asked, mut answered) = (String::new(), String::new());
    served.read_to_string(&mut asked).expect("to its end");
    served.write_all(b"answer").expect("the other direction is open");
    drop(served);
    client.read_to_string(&mut answered).expect("to its end");
    assert_eq!((asked.as_str(), answered.as_str()), ("question", "answer"));
}

#[test]
fn a_client_of_a_sandbox_that_does_not_listen_is_reset() {
    let closed = free(Protocol::Tcp);
    let (_relay, port) = relayed(Protocol::Tcp, (HERE, closed.host_port).into());
    let mut client = TcpStream::connect(port).expect("it listens");
    let fault = client.read(&mut [0]).expect_err("nothing listens behind it");
    assert_eq!(fault.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn what_goes_over_a_port_ends_with_it() {
    let sandbox = TcpListener::bind((HERE, 0)).expect("a port");
    let (mut relay, port) = relayed(Protocol::Tcp, sandbox.local_addr().expect("bound"));
    let mut client = TcpStream::connect(port).expect("it listens");
    let _served = sandbox.accept().expect("relayed");
    let serving = *relay.serving().keys().next().expect("one");
    relay.close(&serving);
    assert!(!matches!(client.read(&mut [0]), Ok(1..)), "the end");
    assert!(relay.serving().is_empty());
}

#[test]
fn datagrams_and_their_answers_are_relayed_for_each_client() {
    let sandbox = UdpSocket::bind((HERE, 0)).expect("a port");
    sandbox.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let (_relay, port) = relayed(Protocol::Udp, sandbox.local_addr().expect("bound"));
    let clients = [(); 2].map(|()| UdpSocket::bind((HERE, 0)).expect("a port"));
    for (client, text) in clients.iter().zip(["one", "two"]) {
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        client.send_to(text.as_bytes(), port).expect("sent");
    }
    let mut buffer = [0; 16];
    for _ in &clients {
        let (length, from) = sandbox.recv_from(&mut buffer).expect("relayed");
        sandbox.send_to(&buffer[..length], from).expect("answered");
    }
    for (client, text) in clients.iter().zip(["one", "two"]) {
        let (length, from) = client.recv_from(&mut buffer).expect("an answer");
        assert_eq!((&buffer[..length], from), (text.as_bytes(), port));
    }
}
