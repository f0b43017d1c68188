//! Names: who is found by whom, over one host and several, and what of it leaves a host.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::dns::{A, AAAA, NAME_ERROR, PTR, REFUSED, ask, ask_over_tcp, send};
use crate::namespace::Namespace;
use crate::rig::{Host, Rig, Sandbox, needs_root};
use crate::wait::{eventually, until};
use crate::weft::{answer, success};

/// Waits until `name` is answered with this in the sandbox.
fn finds(sandbox: &Sandbox<'_>, name: &str, expected: &[IpAddr]) {
    eventually(&format!("{} finds {name}", sandbox.name), || {
        let answer = ask(&sandbox.namespace, name, A);
        let found = answer.addresses();
        if found == expected.iter().copied().collect::<BTreeSet<_>>() {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    });
}

/// Waits until nobody is called `name` in the sandbox.
fn misses(sandbox: &Sandbox<'_>, name: &str) {
    eventually(&format!("{} does not find {name}", sandbox.name), || {
        let answer = ask(&sandbox.namespace, name, A);
        if answer.code == NAME_ERROR { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}

fn short_id(sandbox: &Sandbox<'_>) -> String {
    let shown = sandbox.host.json(&["sandbox", "inspect", &sandbox.name]);
    shown[0]["Id"].as_str().expect("an id")[..12].to_owned()
}

/// A sandbox's port 53 is free for a server of its own.
fn port_is_free(sandbox: &Sandbox<'_>) {
    sandbox.namespace.enter(|| {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).expect("UDP port 53 is free");
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 53)).expect("TCP port 53 is free");
    });
}

#[test]
fn sandboxes_of_all_hosts_find_each_other_by_name_in_the_networks_they_share() {
    needs_root!();
    let rig = Rig::cluster(2);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "--subnet", "fd07::/64", "blue"]);
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.8.0.0/24", "red"]);
    until("b knows the networks", || b.weft(&["network", "inspect", "red"]).code == 0);
    let web = a.sandbox("web", "blue", &["--alias", "www"]);
    let db = b.sandbox("db", "blue", &["--alias", "www"]);
    let eve = a.sandbox("eve", "red", &[]);

    let (web4, db4) = (web.ip4().into(), db.ip4().into());
    finds(&web, "db", &[db4]);
    finds(&db, "WEB.Blue", &[web4]);
    finds(&db, &short_id(&web), &[web4]);
    finds(&web, "www", &[web4, db4]);
    assert_eq!(ask(&web.namespace, "db", AAAA).addresses(), db.ip6.map(IpAddr::V6).into_iter().collect());
    assert_eq!(ask_over_tcp(&web.namespace, "db", A).addresses(), [db4].into());
    let [.., third, last] = db.ip4().octets();
    let reverse = ask(&web.namespace, &format!("{last}.{third}.7.10.in-addr.arpa"), PTR);
    assert_eq!(reverse.names, ["db.blue"]);
    port_is_free(&web);

    // as programs ask: musl's and the GNU C library's way, and ping
    assert!(success(&mut web.exec("busybox nslookup db")).contains(&db.ip4().to_string()));
    assert!(success(&mut db.exec("getent ahosts web")).contains(&web.ip4().to_string()));
    success(&mut web.exec("busybox ping -c 1 -W 5 db"));

    misses(&eve, "db");
    misses(&eve, "web");
    misses(&web, "eve");
    a.ok(&["network", "connect", "red", "web"]);
    let web_in_red = a.attached("web", "red");
    finds(&eve, "web", &[web_in_red.ip4().into()]);
    finds(&web, "eve", &[eve.ip4().into()]);
    a.ok(&["network", "disconnect", "red", "web"]);
    misses(&eve, "web");
    misses(&web, "eve");

    // agents that start again answer again
    a.stop();
    assert!(!web.namespace.enter(|| send("db", A, Duration::from_millis(200)).is_some()), "nobody is there");
    a.start(&[]);
    finds(&web, "db", &[db4]);
    port_is_free(&web);

    // a name goes with its sandbox, and comes back as another one
    b.ok(&["sandbox", "rm", "db"]);
    misses(&web, "db");
    let db = b.sandbox("db", "blue", &["--ip", "10.7.0.99"]);
    finds(&web, "db", &[db.ip4().into()]);
    b.kill();
    misses(&web, "db");
    finds(&web, "www", &[web4]);
}

/// A server for names outside, in a host's namespace: it knows every name but `silent`, and notes what it was asked.
struct Outside {
    asked: Mutex<Vec<String>>,
    ended: AtomicBool,
}

const ANSWER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

impl Outside {
    fn new() -> Self {
        Self { asked: Mutex::default(), ended: AtomicBool::new(false) }
    }

    /// Serves at `address` in `namespace` for as long as `work` takes.
    fn during<T>(&self, namespace: &Namespace, address: IpAddr, work: impl FnOnce() -> T) -> T {
        let socket = namespace.enter(|| UdpSocket::bind((address, 53))).expect("port 53");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout set");
        std::thread::scope(|scope| {
            scope.spawn(|| self.serve(&socket));
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            self.ended.store(true, Ordering::Relaxed);
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn serve(&self, socket: &UdpSocket) {
        let mut buffer = [0; 512];
        while !self.ended.load(Ordering::Relaxed) {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            let name = crate::dns::question(&buffer[..length]);
            if !name.starts_with("silent") {
                reply(socket, &buffer[..length], from);
            }
            self.asked.lock().expect("unpoisoned").push(name);
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("unpoisoned").clone()
    }
}

/// First what anybody could send who guesses the port but not the id, then the answer.
fn reply(socket: &UdpSocket, query: &[u8], to: SocketAddr) {
    let real = crate::dns::reply(query, ANSWER);
    let mut forged = crate::dns::reply(query, Ipv4Addr::new(203, 0, 113, 66));
    forged[0] ^= 0xff;
    for octets in [forged, real] {
        socket.send_to(&octets, to).expect("sent");
    }
}

fn start_with(host: &Host, resolv_conf: &str) {
    let path = host.dir.join("resolv.conf");
    std::fs::write(&path, resolv_conf).expect("written");
    host.start(&["--resolv-conf", path.to_str().expect("a path")]);
}

#[test]
fn names_outside_are_asked_of_the_hosts_servers_but_never_for_internal_networks() {
    needs_root!();
    let rig = Rig::wire(&["a"]);
    let a = &rig.hosts[0];
    // the first server does not exist, the second is one that only the host itself can reach
    start_with(a, "nameserver 192.0.2.250\nnameserver 127.0.0.53\nsearch corp.example\n");
    rig.meet(1);
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "blue"]);
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.8.0.0/24", "--internal", "vault"]);
    let web = a.sandbox("web", "blue", &[]);
    let safe = a.sandbox("safe", "vault", &[]);
    let loud = a.sandbox("loud", "blue", &[]);
    let outside = Outside::new();
    outside.during(&a.namespace, Ipv4Addr::new(127, 0, 0, 53).into(), || {
        assert_eq!(ask(&web.namespace, "www.example.org", A).addresses(), [ANSWER.into()].into());
        let stats = a.json(&["stats"]);
        assert!(stats["Names"]["forged_replies"].as_u64() >= Some(1), "{stats}");

        assert_eq!(ask(&safe.namespace, "leak.example.org", A).code, NAME_ERROR);
        assert_eq!(ask(&web.namespace, "ghost", A).code, NAME_ERROR);
        assert_eq!(ask(&web.namespace, "ghost.blue", A).code, NAME_ERROR);
        assert!(!outside.asked().iter().any(|name| name.contains("leak") || name.contains("ghost")));

        // the host's file is followed
        let file = a.dir.join("resolv.conf");
        std::fs::write(&file, "nameserver 127.0.0.53\nsearch corp.example\n").expect("written");
        until("the dead server is forgotten", || {
            success(&mut web.exec("cat /etc/resolv.conf")).contains("ExtServers: [host(127.0.0.53)]")
        });

        // one that asks without end for what nobody answers has its share and no more
        let flood = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
            for n in 0..3_000_u32 {
                let _ = socket
                    .send_to(&crate::dns::query(&format!("silent{n}.example.org"), A), ("127.0.0.11", 53));
            }
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout set");
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer).expect("an answer");
            assert_eq!(buffer[..length][3] & 0x0f, REFUSED, "more than a sandbox may ask at a time");
        };
        loud.namespace.enter(flood);
        for name in ["one.example.org", "two.example.org", "three.example.org"] {
            assert_eq!(ask(&web.namespace, name, A).addresses(), [ANSWER.into()].into(), "{name}");
        }
        assert_eq!(ask(&web.namespace, "loud", A).addresses(), [loud.ip4().into()].into());
    });
}

#[test]
fn a_sandbox_has_the_servers_hosts_and_name_that_its_user_wants() {
    needs_root!();
    let rig = Rig::wire(&["a"]);
    let a = &rig.hosts[0];
    start_with(a, "nameserver 127.0.0.53\nnameserver 192.0.2.53\nsearch corp.example\noptions edns0\n");
    rig.meet(1);
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "--internal", "blue"]);
    let run = |flags: &[&str], script: &str| {
        let mut words = vec!["run", "--rm"];
        words.extend(flags);
        words.extend(["--", "sh", "-c", script]);
        a.ok(&words)
    };

    let files = "cat /etc/resolv.conf; echo --; cat /etc/hosts; echo --; cat /etc/hostname; hostname";
    let said = run(&["--network", "blue", "--ip", "10.7.0.9", "--add-host", "db:192.0.2.7"], files);
    let id = said.lines().last().expect("a name").to_owned();
    assert!(id.len() == 12 && id.bytes().all(|octet| octet.is_ascii_hexdigit()), "{said}");
    assert_eq!(
        said,
        format!(
            "# Generated by weft.\n\nnameserver 127.0.0.11\nsearch corp.example\noptions edns0 ndots:0\n\n\
             # Based on host file: '/etc/resolv.conf' (internal resolver)\n\
             # ExtServers: [host(127.0.0.53) host(192.0.2.53)]\n# Overrides: []\n--\n\
             127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
             ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n\
             192.0.2.7\tdb\n10.7.0.9\t{id}\n--\n{id}\n{id}"
        )
    );

    let wishes = [
        "--network",
        "blue",
        "--hostname",
        "box.example",
        "--dns",
        "10.7.0.53",
        "--dns-search",
        ".",
        "--dns-option",
        "ndots:2",
    ];
    let said = run(&wishes, files);
    assert!(said.contains("nameserver 127.0.0.11\noptions ndots:2\n"), "{said}");
    assert!(
        said.contains("# ExtServers: [10.7.0.53]\n# Overrides: [nameservers search options]\n"),
        "{said}"
    );
    assert!(said.ends_with("\tbox.example box\n--\nbox.example\nbox.example"), "{said}");

    // a server in the network is asked from the sandbox, though the network is internal
    let server = a.sandbox("server", "blue", &["--ip", "10.7.0.53"]);
    let outside = Outside::new();
    outside.during(&server.namespace, server.ip4().into(), || {
        let found = run(&["--network", "blue", "--dns", "10.7.0.53"], "getent ahostsv4 www.example.org");
        assert!(found.contains(&ANSWER.to_string()), "{found}");
    });

    // without a network with names, the host's servers that can be reached, and no names
    let said = run(&["--network", "none"], "cat /etc/resolv.conf");
    assert!(said.contains("nameserver 192.0.2.53\n") && !said.contains("127."), "{said}");
    let mut lost =
        a.command(&["run", "--rm", "--network", "none", "--", "busybox", "ping", "-c", "1", "app2"]);
    let lost = answer(&mut lost);
    assert!(lost.code == 1 && lost.stderr.contains("ping: bad address 'app2'"), "{lost:?}");

    // where the agent's files are not to be seen, there are copies of them
    let mut hidden = std::process::Command::new("unshare");
    let script = format!(
        "mount -t tmpfs none {0}/sandboxes && {1} --socket {0}/weft.sock exec server cat /etc/hosts",
        a.dir.join("run").display(),
        crate::weft::WEFT
    );
    let hidden = success(hidden.args(["-m", "sh", "-c", &script]).stdin(Stdio::null()));
    assert!(hidden.contains("10.7.0.53\t"), "{hidden}");

    for (flags, text) in [
        (["--hostname", "a b"], "invalid hostname format: a b"),
        (["--dns", "nowhere"], "nowhere is not an ip address"),
        (["--dns-search", "a b"], "a b is not a valid domain"),
        (["--add-host", "db"], "bad format for add-host: \"db\""),
        (["--add-host", "db:x"], "invalid IP address in add-host: \"x\""),
    ] {
        let said = a.refused(1, &["sandbox", "create", "other", flags[0], flags[1]]);
        assert!(said.contains(text), "{said}");
    }
    assert!(a.weft(&["sandbox", "inspect", "other"]).code != 0, "nothing was made");
}

#[test]
fn bridges_that_somebody_made_have_names_and_the_predefined_one_has_none() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    a.ok(&["network", "create", "front"]);
    a.ok(&["network", "create", "--internal", "back"]);
    let web = a.sandbox("web", "front", &["--alias", "www"]);
    let api = a.sandbox("api", "front", &[]);
    a.ok(&["network", "connect", "back", "api"]);
    let db = a.sandbox("db", "back", &[]);
    finds(&web, "api", &[api.ip4().into()]);
    finds(&api, "www", &[web.ip4().into()]);
    finds(&api, "db.back", &[db.ip4().into()]);
    misses(&web, "db");
    misses(&db, "web");
    misses(&db, "leak.example.org");
    success(&mut web.exec("busybox ping -c 1 -W 5 api"));
    a.ok(&["sandbox", "rm", "api"]);
    misses(&web, "api");

    let app = a.sandbox("app1", "bridge", &[]);
    let lost = answer(&mut app.exec("busybox ping -c 1 app2"));
    assert!(lost.code == 1 && lost.stderr.contains("ping: bad address 'app2'"), "{lost:?}");
    assert!(!success(&mut app.exec("cat /etc/resolv.conf")).contains("127.0.0.11"));
}
