//! The client and the verbs against an agent of canned answers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;

use clap::Parser;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tempfile::TempDir;

use super::*;
use crate::args::Cli;
use crate::output::Screen;

/// An agent that gives fixed answers and remembers what it was asked.
pub(crate) struct FakeAgent {
    directory: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeAgent {
    /// Answers `METHOD /path` with a status and a body; anything else is not found.
    pub(crate) fn answering(answers: &[(&str, u16, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let listener = UnixListener::bind(directory.path().join("weft.sock")).expect("listen");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answers: BTreeMap<String, (u16, String)> = answers
            .iter()
            .map(|(call, status, body)| ((*call).to_owned(), (*status, (*body).to_owned())))
            .collect();
        let log = Arc::clone(&asked);
        // The thread ends with the test's process; it holds nothing but the listener.
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| serve(stream, &answers, &log)));
        Self { directory, asked }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("weft.sock")
    }

    /// Runs a command line against this agent: exit status, standard output, standard error.
    pub(crate) fn weft(&self, line: &str) -> (u8, String, String) {
        let socket = self.socket();
        let words = ["weft", "--socket"].into_iter().map(str::to_owned);
        let words =
            words.chain([socket.display().to_string()]).chain(line.split_whitespace().map(str::to_owned));
        run(words)
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("log").clone()
    }
}

/// Runs a command line: exit status, standard output, standard error.
pub(crate) fn run(words: impl Iterator<Item = String>) -> (u8, String, String) {
    let (out, err) = (Sink::default(), Sink::default());
    let mut screen = Screen::plain(Box::new(out.clone()), Box::new(err.clone()));
    let cli = Cli::try_parse_from(words).expect("parses");
    let status = crate::perform(&cli, &mut screen).err().map_or(0, |failure| {
        failure.report(&mut screen);
        failure.exit_status()
    });
    (status, out.text(), err.text())
}

/// Output kept for inspection.
#[derive(Clone, Default)]
struct Sink(Rc<RefCell<Vec<u8>>>);

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).expect("UTF-8")
    }
}

impl Write for Sink {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn serve(stream: UnixStream, answers: &BTreeMap<String, (u16, String)>, log: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    let (call, headers) = read_head(&mut reader);
    let length = headers.get("content-length").map_or(0, |length| length.parse().expect("length"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("body");
    log.lock().expect("log").push(format!("{call} {}", String::from_utf8_lossy(&body)).trim_end().to_owned());
    let missing = (404, r#"{"message":"no such thing"}"#.to_owned());
    let (status, answer) = answers.get(&call).unwrap_or(&missing);
    if *status == 101 {
        return switch(stream, reader, answer);
    }
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", answer.len());
    (&stream).write_all(format!("{head}{answer}").as_bytes()).expect("answer");
}

fn read_head(reader: &mut impl BufRead) -> (String, BTreeMap<String, String>) {
    let mut lines = reader.lines().map(|line| line.expect("line")).take_while(|line| !line.is_empty());
    let request = lines.next().unwrap_or_default();
    let headers =
        lines.filter_map(|l| l.split_once(": ").map(|(k, v)| (k.to_lowercase(), v.to_owned()))).collect();
    (request.trim_end_matches(" HTTP/1.1").to_owned(), headers)
}

/// Gives a descriptor at once after the head, or waits for one and answers with a line.
fn switch(stream: UnixStream, mut reader: BufReader<UnixStream>, answer: &str) {
    let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: weft-descriptor\r\n\r\n";
    (&stream).write_all(head.as_bytes()).expect("head");
    if answer == "give" {
        let file = std::fs::File::open("/proc/self/ns/net").expect("namespace");
        let descriptors = [file.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let octet = [IoSlice::new(&[0])];
        sendmsg::<()>(stream.as_raw_fd(), &octet, &rights, MsgFlags::empty(), None).expect("send");
    } else {
        reader.read_exact(&mut [0]).expect("octet");
        (&stream).write_all(format!("{answer}\n").as_bytes()).expect("answer");
    }
}

const BLUE: &str = r#"{"Name":"blue","Id":"00112233445566778899aabbccddeeff00000000000000000000000000000000",
"Created":"2026-01-01T00:00:00.000000000Z","Scope":"global","Driver":"overlay","EnableIPv4":true,"EnableIPv6":false,
"IPAM":{"Driver":"default","Options":null,"Config":[{"Subnet":"10.0.1.0/24","Gateway":"10.0.1.1"}]},
"Internal":false,"Attachable":true,"Ingress":false,"Options":{},"Labels":{"team":"a"},"Peers":[],"Containers":{},
"VNI":4097,"MTU":1450,"Ranges":[]}"#;

fn networks() -> String {
    let red = BLUE.replace("blue", "net10").replace("0011", "ff11").replace(r#"{"team":"a"}"#, "{}");
    let green = BLUE.replace("blue", "net2").replace("0011", "ee11");
    format!("[{red},{green},{BLUE}]")
}

#[test]
fn networks_are_listed_as_docker_lists_them_in_natural_order() {
    let agent = FakeAgent::answering(&[("GET /networks", 200, &networks())]);
    let table = "NETWORK ID     NAME      DRIVER    SCOPE\n\
                 001122334455   blue      overlay   global\n\
                 ee1122334455   net2      overlay   global\n\
                 ff1122334455   net10     overlay   global\n";
    assert_eq!(agent.weft("network ls"), (0, table.to_owned(), String::new()));
    assert_eq!(agent.weft("network ls -q").1, "001122334455\nee1122334455\nff1122334455\n");
    assert_eq!(agent.weft("network ls -q --no-trunc").1.lines().next().map(str::len), Some(64));
}

#[test]
fn filters_choose_among_networks() {
    let agent = FakeAgent::answering(&[("GET /networks", 200, &networks())]);
    for (filter, names) in [
        ("name=net", "ee1122334455\nff1122334455\n"),
        ("id=0011", "001122334455\n"),
        ("label=team", "001122334455\nee1122334455\n"),
        ("label=team=b", ""),
        ("driver=bridge", ""),
        ("type=builtin", ""),
        ("name=net -f label=team=a", "ee1122334455\n"),
    ] {
        assert_eq!(agent.weft(&format!("network ls -q -f {filter}")).1, names, "{filter}");
    }
    let (status, _, words) = agent.weft("network ls -f dangling=maybe");
    assert_eq!(status, 1);
    assert!(
        words
            .contains(r#"invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")"#)
    );
    assert!(agent.weft("network ls -f type=x").2.contains("invalid filter: 'type'='x'"));
}

#[test]
fn inspect_prints_what_it_finds_and_fails_for_the_rest() {
    let agent = FakeAgent::answering(&[
        ("GET /networks/blue", 200, BLUE),
        ("GET /networks/x", 404, r#"{"message":"network x not found"}"#),
    ]);
    let (status, out, err) = agent.weft("network inspect blue x");
    assert_eq!((status, err.as_str()), (1, "network x not found\n"));
    assert!(out.starts_with("[\n    {\n        \"Name\": \"blue\",\n"), "{out}");
    assert!(out.ends_with("\n    }\n]\n"), "{out}");
    assert_eq!(agent.weft("network inspect x"), (1, "[]\n".to_owned(), "network x not found\n".to_owned()));
}

#[test]
fn rm_goes_on_after_a_refusal_and_force_forgives_what_is_not_there() {
    let agent = FakeAgent::answering(&[
        ("DELETE /networks/a", 403, r#"{"message":"network a has active endpoints"}"#),
        ("DELETE /networks/b", 204, ""),
    ]);
    let refused = (1, "b\n".to_owned(), "network a has active endpoints\n".to_owned());
    assert_eq!(agent.weft("network rm a b"), refused);
    assert_eq!(agent.weft("network rm b c"), (1, "b\n".to_owned(), "no such thing\n".to_owned()));
    assert_eq!(agent.weft("network rm -f b c"), (0, "b\n".to_owned(), String::new()));
}

#[test]
fn a_sandbox_with_processes_is_removed_by_force_only() {
    let web = r#"{"Name":"web","Id":"0a","Created":"","Namespace":"","Ephemeral":false,"Adopted":false,"Networks":{}}"#;
    let answers = [
        ("GET /sandboxes/web", 200, web),
        ("DELETE /sandboxes/0a", 409, r#"{"message":"it has processes"}"#),
        ("DELETE /sandboxes/0a?force=true", 204, ""),
    ];
    let agent = FakeAgent::answering(&answers);
    assert_eq!(agent.weft("sandbox rm web"), (1, String::new(), "it has processes\n".to_owned()));
    assert_eq!(agent.weft("sandbox rm -f web nobody"), (0, "web\n".to_owned(), String::new()));
}

#[test]
fn create_sends_dockers_request_and_prints_the_id() {
    let answer = r#"{"Id":"abc","Warning":"watch\u001b out"}"#;
    let agent = FakeAgent::answering(&[("POST /networks/create", 201, answer)]);
    let line = "network create -d overlay --subnet 10.7.0.0/24 --ip-range 10.7.0.128/25 -o encrypted --label a=b blue";
    assert_eq!(agent.weft(line), (0, "abc\n".to_owned(), "WARNING: watch\\x1b out\n".to_owned()));
    let body = agent.asked()[0].strip_prefix("POST /networks/create ").expect("call").to_owned();
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["Name"], "blue");
    assert_eq!(body["Driver"], "overlay");
    assert_eq!(body["IPAM"]["Config"][0]["IPRange"], "10.7.0.128/25");
    assert_eq!(body["Options"]["encrypted"], "");
    assert_eq!(body["Labels"]["a"], "b");
}

#[test]
fn a_name_is_never_another_path() {
    let agent = FakeAgent::answering(&[]);
    agent.weft("network rm ../peers?x=1#y");
    agent.weft("network rm ..");
    assert_eq!(
        agent.asked(),
        [
            "DELETE /networks/%2E%2E%2Fpeers%3Fx%3D1%23y".replace("%2E%2E", ".."),
            "DELETE /networks/%2E%2E".to_owned()
        ]
    );
}

#[test]
fn connect_passes_the_wishes_on() {
    let answer = r#"{"EndpointID":"e","Interface":"eth0","MacAddress":"02:00:00:00:00:01","Addresses":["10.7.0.9/24"]}"#;
    let agent = FakeAgent::answering(&[("POST /networks/blue/connect", 200, answer)]);
    let line = "network connect --ip 10.7.0.9 --mac 02-00-00-00-00-01 --alias w blue web";
    assert_eq!(agent.weft(line), (0, String::new(), String::new()));
    let body = agent.asked()[0].strip_prefix("POST /networks/blue/connect ").expect("call").to_owned();
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["Container"], "web");
    assert_eq!(body["EndpointConfig"]["IPAMConfig"]["IPv4Address"], "10.7.0.9");
    assert_eq!(body["EndpointConfig"]["MacAddress"], "02:00:00:00:00:01");
    assert_eq!(body["EndpointConfig"]["Aliases"][0], "w");
}

#[test]
fn a_namespace_of_a_process_is_handed_over_and_then_connected() {
    let sandbox = r#"{"Name":"adopted","Id":"a","Created":"","Namespace":"","Ephemeral":false,"Adopted":true,"Networks":{}}"#;
    let answer = r#"{"EndpointID":"e","Interface":"eth0","MacAddress":"","Addresses":[]}"#;
    let pid = std::process::id();
    let adopt = format!("POST /sandboxes/adopt?name=pid-{pid}");
    let agent = FakeAgent::answering(&[(&adopt, 101, sandbox), ("POST /networks/blue/connect", 200, answer)]);
    assert_eq!(agent.weft(&format!("network connect blue pid:{pid}")), (0, String::new(), String::new()));
    assert!(agent.asked()[1].contains(r#""Container":"adopted""#), "{:?}", agent.asked());
}

#[test]
fn a_refused_adoption_is_shown() {
    let pid = std::process::id();
    let adopt = format!("POST /sandboxes/adopt?name=pid-{pid}");
    let agent = FakeAgent::answering(&[(&adopt, 101, r#"{"message":"no namespace came"}"#)]);
    let expected = (1, String::new(), "no namespace came\n".to_owned());
    assert_eq!(agent.weft(&format!("network connect blue pid:{pid}")), expected);
}

#[test]
fn a_descriptor_sent_right_behind_the_head_is_not_lost() {
    let agent = FakeAgent::answering(&[("POST /sandboxes/s/namespace", 101, "give")]);
    for _ in 0..50 {
        let client = Client::new(&agent.socket()).expect("client");
        let namespace = client.namespace("s").expect("namespace");
        let link =
            std::fs::read_link(format!("/proc/self/fd/{}", namespace.as_fd().as_raw_fd())).expect("link");
        assert!(link.to_string_lossy().starts_with("net:["), "{}", link.display());
    }
}

#[test]
fn an_agent_that_is_not_there_is_status_3_and_says_what_to_do() {
    let words = ["weft", "--socket", "/nonexistent/weft.sock", "status"].map(str::to_owned);
    let (status, out, err) = run(words.into_iter());
    assert_eq!((status, out.as_str()), (3, ""));
    assert!(err.contains("no agent answers at /nonexistent/weft.sock: No such file"), "{err}");
    assert!(err.contains("weft agent") && err.contains("--socket"), "{err}");
}

#[test]
fn an_agent_that_talks_nonsense_is_a_failure_not_a_crash() {
    let agent = FakeAgent::answering(&[("GET /networks", 200, "[1"), ("GET /peers", 500, "\u{1b}oops")]);
    let (status, _, err) = agent.weft("network ls");
    assert_eq!(status, 1);
    assert!(err.contains("not of the expected shape"), "{err}");
    assert_eq!(agent.weft("peers"), (1, String::new(), "status 500: \\x1boops\n".to_owned()));
}

#[test]
fn status_peers_fdb_and_stats_are_readable() {
    let status = r#"{"Version":"0.1.0","NodeId":"00112233445566778899aabbccddeeff","Node":"a","Advertise":"192.0.2.1",
        "DataPort":4789,"GossipPort":7946,"Workers":2,"UptimeSeconds":61,"BootEpoch":3,"MembersAlive":2,"MembersDead":1,
        "Networks":1,"EndpointsLocal":1,"EndpointsRemote":2,"Warnings":["clock\u0007"]}"#;
    let peers = r#"[{"Name":"b","NodeId":"ff112233445566778899aabbccddeeff","Address":"192.0.2.2:7946","DataPort":4789,
        "State":"dead","ThisNode":false,"Endpoints":1,"Version":7},
        {"Name":"a","NodeId":"00112233445566778899aabbccddeeff","Address":"192.0.2.1:7946","DataPort":4789,
        "State":"alive","ThisNode":true,"Endpoints":0,"Version":7}]"#;
    let fdb = r#"[{"Mac":"02:00:00:00:00:01","Ips":["10.0.1.2"],"Vtep":null,"VNI":7,"Node":"a","Endpoint":"web","State":"local"}]"#;
    let stats = r#"{"Dataplane":{"frames":5,"zero":0},"Drops":{"spoofed":1},"Gossip":{"sent":9}}"#;
    let agent = FakeAgent::answering(&[
        ("GET /status", 200, status),
        ("GET /peers", 200, peers),
        ("GET /networks/blue/fdb", 200, fdb),
        ("GET /stats", 200, stats),
    ]);
    let text = agent.weft("status").1;
    assert!(text.contains("node        a (001122334455)\n"), "{text}");
    assert!(text.contains("up          1 min 1 s, start number 3, 2 workers\n"), "{text}");
    assert!(text.ends_with("warning: clock\\x07\n"), "{text}");
    assert_eq!(
        agent.weft("peers").1,
        "NODE ID        NAME      ADDRESS          DATA PORT   ENDPOINTS   SEALED WITH   DROPPED   STATE\n\
         001122334455   a         192.0.2.1:7946   4789        0           -             -         alive (this node)\n\
         ff1122334455   b         192.0.2.2:7946   4789        1           -             -         dead\n"
    );
    assert_eq!(
        agent.weft("fdb blue").1,
        "MAC                 ADDRESSES   VTEP      VNI       NODE      ENDPOINT   STATE\n\
         02:00:00:00:00:01   10.0.1.2    -         7         a         web        local\n"
    );
    assert_eq!(
        agent.weft("stats").1,
        "COUNTER        VALUE\nframes         5\ndrop.spoofed   1\ngossip.sent    9\n"
    );
}

#[test]
fn keys_are_listed_and_rotated() {
    let keys = r#"[{"Epoch":"2-0a1b","Active":false,"Urgent":true,"AgeSeconds":5,"Members":1,"Of":3},
        {"Epoch":"1-ffee","Active":true,"Urgent":false,"AgeSeconds":7200,"Members":3,"Of":3}]"#;
    let agent = FakeAgent::answering(&[
        ("GET /keys", 200, keys),
        ("POST /keys/rotate", 201, r#"{"Epoch":"3-0001"}"#),
    ]);
    assert_eq!(
        agent.weft("keys ls").1,
        "EPOCH     AGE         MEMBERS   REASON       STATE\n\
         2-0a1b    5 s         1/3       revocation   known\n\
         1-ffee    2 h 0 min   3/3       rotation     active\n"
    );
    assert_eq!(agent.weft("keys rotate"), (0, "3-0001\n".to_owned(), String::new()));
}
