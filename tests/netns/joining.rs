//! Becoming a member, as an operator does it: init, tokens, join, revoke, leave.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use weft_control::trust::Papers;

use crate::rig::{Host, Rig, UNDERLAY, needs_root};
use crate::traffic::Capture;
use crate::wait::until;
use crate::weft::{self, Answer};

/// `weft VERB` on a host's state, before any agent.
fn verb(host: &Host, verb: &str, arguments: &[&str]) -> Command {
    let mut command = weft::weft();
    command.arg(verb).arg("--state-dir").arg(host.dir.join("state")).args(["--name", &host.name]);
    command.args(arguments);
    command
}

fn init(host: &Host) -> String {
    let address = host.ip4.to_string();
    let answer = host.ends(&mut verb(host, "init", &["--advertise", &address]));
    assert_eq!(answer.code, 0, "{answer:?}");
    token_in(&answer.stdout)
}

fn token_in(text: &str) -> String {
    let token = text.split_whitespace().find(|word| word.starts_with("weft1_"));
    token.unwrap_or_else(|| panic!("no token in {text}")).to_owned()
}

fn join(host: &Host, token: &str) -> Answer {
    let address = host.ip4.to_string();
    host.ends(&mut verb(host, "join", &["--advertise", &address, token]))
}

/// An agent that is told nothing but its directories.
fn start(host: &Host) {
    let mut command = weft::weft();
    command
        .args(["agent", "--state-dir"])
        .arg(host.dir.join("state"))
        .arg("--run-dir")
        .arg(host.dir.join("run"));
    host.start_command(&mut command);
}

#[test]
fn hosts_join_by_tokens_and_need_only_their_state_afterwards() {
    needs_root!();
    let rig = Rig::wire(&["a", "b", "c"]);
    let [a, b, c] = rig.hosts.as_slice() else { panic!("three hosts") };
    let token = init(a);
    let again = a.ends(&mut verb(a, "init", &[]));
    assert!(again.code == 1 && again.stderr.contains("is in cluster"), "{again:?}");
    let early = join(b, &token);
    assert!(early.code == 1 && early.stderr.contains("192.0.2.1:7946"), "nobody answers yet: {early:?}");
    start(a);
    let joined = join(b, &token);
    assert!(joined.code == 0 && joined.stderr.contains("asking 192.0.2.1:7946"), "{joined:?}");
    let twice = join(b, &token);
    assert!(twice.code == 1 && twice.stderr.contains("already, as node b"), "{twice:?}");
    start(b);
    rig.meet(2);

    let once = a.json(&["token", "create", "--uses", "1", "--ttl", "1h"]);
    let text = once["Token"].as_str().expect("a token").to_owned();
    until("b has heard of the token", || {
        let known = b.json(&["token", "ls"]);
        known.as_array().into_iter().flatten().any(|token| token["Id"] == once["Id"])
    });
    let file = c.dir.join("token");
    std::fs::write(&file, format!("{text}\n")).expect("written");
    let by_file = c.ends(&mut verb(c, "join", &["--token-file", &file.to_string_lossy()]));
    assert_eq!(by_file.code, 0, "{by_file:?}");
    start(c);
    rig.meet(3);
    let nodes = a.json(&["node", "ls"]);
    assert_eq!(nodes.as_array().map(Vec::len), Some(3), "{nodes}");

    for host in [a, b, c] {
        host.stop();
    }
    for host in [c, b, a] {
        start(host);
    }
    rig.meet(3);
}

#[test]
fn a_token_that_lets_nobody_in_says_why() {
    needs_root!();
    let rig = Rig::wire(&["a", "b", "c", "d"]);
    let [a, b, c, d] = rig.hosts.as_slice() else { panic!("four hosts") };
    let token = init(a);
    start(a);
    let refused = |host: &Host, token: &str, words: &str| {
        let answer = join(host, token);
        assert!(answer.code == 1 && answer.stderr.contains(words), "{words}: {answer:?}");
        let secret = &token[token.len().min(33)..token.len().min(57)];
        assert!(secret.len() < 24 || !answer.stderr.contains(secret), "the secret is not repeated");
    };
    refused(b, "hello", "tokens begin with 'weft1_'");
    refused(b, &token[..40], "cut short");
    let swapped = if token.ends_with('a') { "b" } else { "a" };
    refused(b, &format!("{}{swapped}{}", &token[..30], &token[31..]), "garbled");
    let once = a.json(&["token", "create", "--uses", "1"])["Token"].as_str().expect("a token").to_owned();
    assert_eq!(join(b, &once).code, 0);
    refused(c, &once, "spent");
    let short = a.json(&["token", "create", "--ttl", "1s"])["Token"].as_str().expect("a token").to_owned();
    until("the token ends", || {
        let known = a.json(&["token", "ls"]);
        known.as_array().into_iter().flatten().any(|token| token["State"] == "expired")
    });
    refused(c, &short, "expired at");
    let gone = a.json(&["token", "create"]);
    a.ok(&["token", "revoke", gone["Id"].as_str().expect("an id")]);
    refused(c, gone["Token"].as_str().expect("a token"), "was revoked");
    // two inits, then a join between them
    let other = init(d);
    start(d);
    refused(d, &token, "already");
    let crossed = format!("{}\n", a.json(&["token", "create"])["Token"].as_str().expect("a token"));
    assert_ne!(crossed.trim(), other);
    refused(c, &other_cluster(&crossed, d), "belongs to another cluster");
}

/// A token of one cluster whose address is that of a node of another.
fn other_cluster(token: &str, stranger: &Host) -> String {
    use weft_control::trust::Token;
    let token: Token = token.parse().expect("a token");
    token.with_seeds(&[(stranger.ip4, 7946).into()]).to_text().to_string()
}

#[test]
fn a_capture_of_a_join_holds_neither_the_token_nor_a_key() {
    needs_root!();
    let rig = Rig::wire(&["a", "b"]);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    let token = init(a);
    start(a);
    let file = rig.dir.path().join("join.pcap");
    let capture = Capture::start(&b.namespace, UNDERLAY, "port 7946", file.clone());
    assert_eq!(join(b, &token).code, 0);
    start(b);
    rig.meet(2);
    let frames = capture.read("tcp.port == 7946", &["frame.number"]);
    assert!(frames.len() > 5, "the join was captured: {frames:?}");
    let seen = std::fs::read(&file).expect("a capture");
    for (what, secret) in secrets(&token, &[&a.dir, &b.dir]) {
        assert!(!seen.windows(secret.len()).any(|window| window == secret), "{what} crossed the wire");
    }
}

/// The token's text and everything secret in the state of hosts.
pub(crate) fn secrets(token: &str, hosts: &[&Path]) -> Vec<(&'static str, Vec<u8>)> {
    let mut secrets = vec![("the token's text", token.as_bytes()[40..60].to_vec())];
    for host in hosts {
        let papers = papers(host);
        secrets.push(("an identity", papers.identity.secret().to_vec()));
        secrets.push(("a static key", papers.identity.static_secret().to_vec()));
        // active epoch and count; then of each epoch its name, whether it is urgent, key, maker, signature
        let keys = papers.ring.to_octets();
        secrets.extend(keys[6..].chunks(133).map(|epoch| ("a gossip key", epoch[5..37].to_vec())));
        secrets.extend(papers.root.map(|root| ("the root", root.secret().to_vec())));
    }
    secrets
}

/// What is in the state of a host, whose agent may run.
pub(crate) fn papers(host: &Path) -> Papers {
    let copy = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(copy.path(), std::fs::Permissions::from_mode(0o700)).expect("ours");
    std::fs::copy(host.join("state/state.redb"), copy.path().join("state.redb")).expect("copied");
    let store = weft_control::io::store::Store::open(copy.path()).expect("opens");
    let root = Papers::load_root(&store).expect("readable");
    Papers { root, ..Papers::load(&store).expect("readable").expect("a member") }
}

#[test]
fn a_revoked_node_is_out_and_is_told_why() {
    needs_root!();
    let rig = Rig::cluster(3);
    let [a, b, c] = rig.hosts.as_slice() else { panic!("three hosts") };
    a.ok(&["network", "create", "-d", "overlay", "blue"]);
    until("c knows the network", || c.weft(&["network", "inspect", "blue"]).code == 0);
    let web = c.sandbox("web", "blue", &[]);
    until("a knows the endpoint", || a.ok(&["network", "inspect", "blue"]).contains(&web.mac));
    let refused = b.refused(1, &["node", "revoke", "c"]);
    assert!(refused.contains("admin"), "b is none: {refused}");
    a.ok(&["node", "revoke", "c", "--reason", "stolen laptop"]);
    for host in [a, b] {
        until("its endpoint is gone", || !host.ok(&["network", "inspect", "blue"]).contains(&web.mac));
        until("it is no member", || host.json(&["status"])["MembersAlive"] == 2);
    }
    let nodes = b.ok(&["node", "ls"]);
    assert!(nodes.contains("stolen laptop"), "{nodes}");
    until("it is told why", || c.ok(&["status"]).contains("stolen laptop"));
}

#[test]
fn a_host_that_left_may_join_again_as_a_new_node() {
    needs_root!();
    let rig = Rig::cluster(2);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    let before = b.json(&["status"])["NodeId"].clone();
    b.ok(&["leave"]);
    until("its agent ends", || b.ended().is_some());
    until("it is gone", || a.json(&["status"])["MembersAlive"] == 1);
    let token = a.json(&["token", "create"])["Token"].as_str().expect("a token").to_owned();
    assert_eq!(join(b, &token).code, 0);
    start(b);
    rig.meet(2);
    assert_ne!(b.json(&["status"])["NodeId"], before);
}

/// Copies the state of a host whose agent does not run.
fn copy_state(from: &Host, to: &Host) {
    std::fs::create_dir_all(to.dir.join("state")).expect("made");
    std::fs::set_permissions(to.dir.join("state"), std::fs::Permissions::from_mode(0o700)).expect("set");
    for entry in std::fs::read_dir(from.dir.join("state")).expect("readable").flatten() {
        std::fs::copy(entry.path(), to.dir.join("state").join(entry.file_name())).expect("copied");
    }
}

#[test]
fn a_copy_of_a_hosts_state_on_another_host_gives_way_and_says_why() {
    needs_root!();
    let rig = Rig::wire(&["a", "b", "c"]);
    let [a, b, c] = rig.hosts.as_slice() else { panic!("three hosts") };
    [a, b].iter().for_each(|host| host.start(&[]));
    rig.meet(2);
    a.ok(&["network", "create", "-d", "overlay", "--opt", "encrypted", "--subnet", "10.7.0.0/24", "blue"]);
    until("b knows the network", || b.weft(&["network", "inspect", "blue"]).code == 0);
    let (web, db) = (a.sandbox("web", "blue", &[]), b.sandbox("db", "blue", &[]));
    b.stop();
    copy_state(b, c);
    b.start(&[]);
    rig.meet(2);
    // Of two that start within a second either may be the one that goes on.
    until("b has run for longer than the copy will have", || {
        b.json(&["status"])["UptimeSeconds"].as_u64() >= Some(3)
    });
    let before = (b.json(&["status"])["NodeId"].clone(), a.json(&["fdb", "blue"]));
    let mut copy = weft::weft();
    copy.args(["agent", "--advertise", &c.ip4.to_string(), "--state-dir"]).arg(c.dir.join("state"));
    copy.arg("--run-dir").arg(c.dir.join("run"));
    let copied = c.ends(&mut copy);
    assert!(copied.code == 1 && copied.stderr.contains("the state directory was copied"), "{copied:?}");
    assert!(copied.stderr.contains(&format!("at {}:7946", b.ip4)), "it says where: {copied:?}");
    assert_eq!((b.json(&["status"])["NodeId"].clone(), a.json(&["fdb", "blue"])), before);
    until("the first goes on", || crate::traffic::pings(&web.namespace, db.ip4().into()));
}
