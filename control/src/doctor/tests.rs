//! Each fault of a host gives one finding that names it and says what to do, and a host in order gives none.

use super::*;

/// A host without Docker and without an agent where everything is as it should be.
fn in_order() -> Facts {
    let port =
        |number, transport, flag| Port { number, transport, purpose: "data", flag, holder: Holder::Nobody };
    Facts {
        version: "1",
        agent: Agent::Silent("No such file or directory".to_owned()),
        socket: "/run/weft/weft.sock".to_owned(),
        privileges: Privileges { root: true, lacking: Vec::new() },
        kernel: Kernel {
            release: "Linux 6.12".into(),
            version: (6, 12),
            udp_offload: true,
            bridge: Some(Ok(())),
        },
        tun: Tun::Works,
        nft: Nft::Works("nftables v1.0.6".to_owned()),
        ports: vec![
            port(4789, Transport::Udp, "--data-port"),
            port(7946, Transport::Udp, "--gossip-port"),
            port(7946, Transport::Tcp, "--gossip-port"),
        ],
        vxlan: Vec::new(),
        underlay: Ok(Underlay { address: [192, 0, 2, 1].into(), interface: "eth0".to_owned(), mtu: 1500 }),
        closed_chains: Vec::new(),
        paths: Vec::new(),
        clock_kept: Some(true),
        bridge_filtering: [None; 2],
        engine: Engine::Absent("/var/run/docker.sock".to_owned()),
        plugin: Plugin::Absent("/run/docker/plugins/weft.sock".to_owned()),
        leftovers: Leftovers { member: Some(false), ..Leftovers::default() },
    }
}

fn status() -> Status {
    let status = serde_json::json!({
        "Version": "1", "NodeId": "07", "Node": "a", "Advertise": "192.0.2.1", "DataPort": 4789, "GossipPort": 7946,
        "Workers": 2, "UptimeSeconds": 1, "BootEpoch": 1, "MembersAlive": 2, "MembersDead": 0, "Networks": 0,
        "EndpointsLocal": 0, "EndpointsRemote": 0, "Warnings": [],
    });
    serde_json::from_value(status).expect("a status")
}

fn answering(status: Status) -> Agent {
    Agent::Answers { status: Box::new(status), peers: Vec::new() }
}

/// The same with an agent that answers.
fn with_agent() -> Facts {
    let mut facts = Facts { agent: answering(status()), ..in_order() };
    facts.ports.iter_mut().for_each(|port| port.holder = Holder::Agent);
    facts
}

fn peer(state: &str, mtu: PathMtu) -> PeerPath {
    PeerPath { name: "b".to_owned(), address: [192, 0, 2, 2].into(), state: state.to_owned(), mtu }
}

/// What is not as it should be.
fn trouble(facts: &Facts) -> Vec<Finding> {
    let findings = examine(facts);
    for finding in &findings {
        let to_do = !finding.remedy.is_empty() || finding.check == "agent's warning";
        assert_eq!(finding.state != State::Ok, to_do, "what is wrong says what to do: {finding:?}");
    }
    findings.into_iter().filter(|finding| finding.state != State::Ok).collect()
}

/// The only finding, which must say all of `words`.
fn only(facts: &Facts, state: State, words: &[&str]) {
    let trouble = trouble(facts);
    let [finding] = trouble.as_slice() else { panic!("one finding: {trouble:?}") };
    assert_eq!(finding.state, state, "{finding:?}");
    let text = format!("{} {} {}", finding.found, finding.why, finding.remedy);
    words.iter().for_each(|word| assert!(text.contains(word), "{word:?} in {text:?}"));
}

#[test]
fn a_host_in_order_lacks_nothing_but_an_agent() {
    only(&in_order(), State::Warning, &["no agent answers at /run/weft/weft.sock", "systemctl start weft"]);
    assert_eq!(trouble(&with_agent()), []);
}

#[test]
fn what_the_agent_warns_of_is_passed_on() {
    let facts =
        Facts { agent: answering(Status { warnings: vec!["look".to_owned()], ..status() }), ..with_agent() };
    only(&facts, State::Warning, &["look"]);
    let facts = Facts { agent: answering(Status { version: "0".to_owned(), ..status() }), ..with_agent() };
    only(&facts, State::Warning, &["version 0", "this is 1", "restart"]);
}

#[test]
fn what_the_host_lacks_is_named_with_the_way_to_get_it() {
    let lacking = Facts { tun: Tun::Missing, ..with_agent() };
    only(&lacking, State::Problem, &["/dev/net/tun", "modprobe tun", "--device"]);
    let lacking = Facts { nft: Nft::Missing, ..with_agent() };
    only(&lacking, State::Problem, &["no nft", "apt install nftables"]);
    let broken = Nft::Fails("nftables v1.0.6: nft: Error: Could not process rule".to_owned());
    only(
        &Facts { nft: broken, ..with_agent() },
        State::Problem,
        &["Could not process", "modprobe nf_tables"],
    );
    let old = Kernel { version: (5, 15), ..in_order().kernel };
    only(&Facts { kernel: old, ..with_agent() }, State::Warning, &["6.2"]);
    let none = Kernel { bridge: Some(Err("cannot make bridge".to_owned())), ..in_order().kernel };
    only(&Facts { kernel: none, ..with_agent() }, State::Problem, &["modprobe bridge"]);
    only(&Facts { clock_kept: Some(false), ..with_agent() }, State::Warning, &["not synchronised", "chrony"]);
    let filtered = Facts { bridge_filtering: [Some(true), Some(false)], ..with_agent() };
    only(&filtered, State::Warning, &["bridge-nf-call-iptables", "sysctl -w"]);
    assert_eq!(trouble(&Facts { bridge_filtering: [Some(false); 2], ..with_agent() }), []);
}

#[test]
fn without_root_the_rest_is_still_looked_at() {
    let privileges = Privileges { root: false, lacking: vec!["CAP_NET_ADMIN"] };
    let facts =
        Facts { privileges, tun: Tun::Untried, nft: Nft::Untried("nftables".to_owned()), ..with_agent() };
    only(&facts, State::Warning, &["not run as root"]);
    let plugin = Plugin::Forbidden("/run/docker/plugins/weft.sock".to_owned());
    let facts = Facts { tun: Tun::Forbidden, plugin, ..facts };
    only(&facts, State::Warning, &["not run as root"]);
    only(&Facts { tun: Tun::Forbidden, ..with_agent() }, State::Problem, &["--device", "DeviceAllow"]);
}

#[test]
fn capabilities_are_missed_only_where_no_agent_runs_with_its_own() {
    let privileges = Privileges { root: true, lacking: vec!["CAP_SYS_ADMIN"] };
    let facts = Facts { privileges: privileges.clone(), ..in_order() };
    let found = trouble(&facts);
    assert!(
        found.iter().any(|one| one.state == State::Problem && one.remedy.contains("--cap-add SYS_ADMIN"))
    );
    assert_eq!(trouble(&Facts { privileges, ..with_agent() }), []);
}

/// The finding about 4789/udp held so.
fn held(holder: Holder, vxlan: Vec<VxlanDevice>) -> Finding {
    let mut facts = Facts { vxlan, ..in_order() };
    facts.ports[0].holder = holder;
    trouble(&facts).into_iter().find(|finding| finding.check == "port").expect("a finding about a port")
}

#[test]
fn whoever_holds_a_port_is_named() {
    let process = held(Holder::Process(7, "socat".to_owned()), Vec::new());
    assert_eq!(
        (process.state, process.found.as_str()),
        (State::Problem, "4789/udp (data) is held by socat (pid 7)")
    );
    assert!(process.remedy.contains("--data-port"), "{process:?}");
    let weft = held(Holder::Process(7, "weft".to_owned()), Vec::new());
    assert!(weft.found.contains("another agent") && weft.remedy.contains("--socket"), "{weft:?}");
    let kernel = held(Holder::Hidden, Vec::new());
    assert!(kernel.found.contains("the kernel"), "{kernel:?}");
}

#[test]
fn a_vxlan_device_of_the_kernels_is_named_and_swarms_is_told_from_others() {
    let device = |name: &str, port, place: &str| VxlanDevice { name: name.into(), port, place: place.into() };
    let own = held(Holder::Hidden, vec![device("other", 8472, ""), device("vx0", 4789, "")]);
    assert!(own.found.ends_with("held by a VXLAN device of the kernel: vx0"), "{own:?}");
    let swarms = ["1-abc", "1-def"].map(|ns| device("vxlan0", 4789, &format!("/run/docker/netns/{ns}")));
    let swarm = held(Holder::Hidden, swarms.to_vec());
    assert!(
        swarm.found.contains("Docker Swarm's overlay: vxlan0 in /run/docker/netns/1-abc and 1 more"),
        "{swarm:?}"
    );
    assert_eq!(
        trouble(&Facts { vxlan: vec![device("vx0", 4789, "")], ..with_agent() }),
        [],
        "it has no socket here"
    );
}

#[test]
fn a_path_that_loses_large_packets_says_which_mtu_to_set() {
    let facts = Facts {
        paths: vec![peer("alive", PathMtu::Only(1450)), peer("alive", PathMtu::Whole)],
        ..with_agent()
    };
    only(
        &facts,
        State::Problem,
        &["more than 1450 octets", "MTU of eth0 to 1450", "mtu=1400 (encrypted: 1376)"],
    );
    only(
        &Facts { paths: vec![peer("dead", PathMtu::Untried)], ..with_agent() },
        State::Warning,
        &["b", "dead"],
    );
    for well in [PathMtu::Whole, PathMtu::Silent] {
        assert_eq!(trouble(&Facts { paths: vec![peer("alive", well)], ..with_agent() }), []);
    }
}

#[test]
fn an_underlay_too_small_for_ipv6_or_without_address_is_told() {
    let small = Underlay { address: [192, 0, 2, 1].into(), interface: "eth0".to_owned(), mtu: 1340 };
    only(&Facts { underlay: Ok(small), ..with_agent() }, State::Warning, &["1266 inside encrypted", "1280"]);
    only(&Facts { underlay: Err("no address".to_owned()), ..with_agent() }, State::Problem, &["--advertise"]);
}

#[test]
fn a_firewall_is_suspected_only_while_nobody_is_heard() {
    let closed = vec!["chain INPUT of table filter".to_owned()];
    let facts = Facts { closed_chains: closed, ..with_agent() };
    only(&facts, State::Warning, &["chain INPUT", "udp dport { 4789, 7946 }", "tcp dport 7946"]);
    assert_eq!(trouble(&Facts { paths: vec![peer("alive", PathMtu::Whole)], ..facts }), []);
}

#[test]
fn docker_is_looked_at_where_it_is() {
    let engine = |version: &str, swarm| Engine::Answers { version: version.to_owned(), swarm };
    let drivers = || Plugin::Answers(vec!["NetworkDriver".to_owned(), "IpamDriver".to_owned()]);
    let served = Facts { plugin: drivers(), ..with_agent() };
    assert_eq!(trouble(&Facts { engine: engine("28.2.2", false), ..served.clone() }), []);
    only(
        &Facts { engine: engine("20.10.24+dfsg1", true), ..served.clone() },
        State::Warning,
        &["swarm leave"],
    );
    only(&Facts { engine: engine("19.03.1", false), ..served.clone() }, State::Warning, &["20.10"]);
    only(
        &Facts { engine: engine("28.2.2", false), ..with_agent() },
        State::Warning,
        &["plugins/weft.sock", "--docker"],
    );
    let half = Plugin::Answers(vec!["NetworkDriver".to_owned()]);
    only(&Facts { plugin: half, ..served.clone() }, State::Problem, &["no IpamDriver"]);
    let silent = Plugin::Silent { socket: "/p/weft.sock".to_owned(), fault: "refused".to_owned() };
    only(&Facts { plugin: silent, ..served.clone() }, State::Problem, &["/p/weft.sock: refused"]);
    let silent = Engine::Silent { socket: "/d".to_owned(), fault: "refused".to_owned() };
    only(&Facts { engine: silent, ..served }, State::Warning, &["/d", "refused"]);
}

#[test]
fn what_an_agent_left_is_its_next_starts_unless_there_will_be_none() {
    let left =
        Leftovers { pins: vec!["web".to_owned()], rules: 2, member: Some(true), ..Leftovers::default() };
    let kept = examine(&Facts { leftovers: left.clone(), ..in_order() });
    let kept = kept.last().expect("a finding");
    assert_eq!(kept.state, State::Ok);
    assert!(kept.found.contains("1 namespaces (web), 2 routing rules"), "{kept:?}");
    let orphans = Facts { leftovers: Leftovers { member: Some(false), ..left }, ..in_order() };
    assert!(
        trouble(&orphans).iter().any(|one| one.check == "leftovers" && one.remedy.contains("weft cleanup"))
    );
    assert_eq!(
        trouble(&Facts { agent: answering(status()), ..orphans }),
        [],
        "the agent has them in its care"
    );
}
