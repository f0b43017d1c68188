//! The plugin's socket without an engine: what engines of several versions say, and what nobody should.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::{Host, Rig, needs_root};
use crate::wait::eventually;

/// What an engine 20.10 called for and was answered, as a tap on the socket heard it; `*` is whatever it is.
const OF_20: &str = include_str!("../docker/engine-20.10.jsonl");
/// The same as engines from 28 on word it: fields that came later, others absent, `null` for what is empty.
const OF_28: &str = include_str!("../docker/engine-28.jsonl");

fn with_plugin() -> Rig {
    let rig = Rig::wire(&["a"]);
    let host = &rig.hosts[0];
    let dir = host.dir.join("plugins");
    host.start(&["--docker-plugin-dir", dir.to_str().expect("a path")]);
    rig
}

fn socket(host: &Host) -> PathBuf {
    host.dir.join("plugins/weft.sock")
}

fn connect(socket: &Path) -> UnixStream {
    let stream =
        eventually("the plugin is served", || UnixStream::connect(socket).map_err(|fault| fault.to_string()));
    stream.set_read_timeout(Some(Duration::from_secs(40))).expect("set");
    stream
}

/// Sends octets and gives all that is answered until the other end closes.
fn send(socket: &Path, octets: &[u8]) -> String {
    let mut stream = connect(socket);
    // An agent that has seen enough may close before it has read everything.
    let _ = stream.write_all(octets);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(socket: &Path, path: &str, body: &str) -> String {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: plugin.moby.localhost\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    send(socket, &[head.as_bytes(), body.as_bytes()].concat())
}

/// Calls the plugin at its socket; gives the answer's object.
pub(crate) fn call(socket: &Path, path: &str, request: &Value) -> Value {
    let body = if request.is_null() { String::new() } else { request.to_string() };
    let answer = post(socket, path, &body);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {answer:?}"));
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    assert!(head.contains("application/vnd.docker.plugins.v1.2+json"), "{head}");
    serde_json::from_str(body).unwrap_or_else(|fault| panic!("{path}: {fault}: {body}"))
}

/// Whether an answer is as it is to be; `*` in that is any text.
fn fits(wanted: &Value, answer: &Value) -> bool {
    match (wanted, answer) {
        (Value::String(any), Value::String(text)) if any == "*" => !text.is_empty(),
        (Value::Object(wanted), Value::Object(answer)) => {
            wanted.len() == answer.len()
                && wanted
                    .iter()
                    .all(|(key, wanted)| answer.get(key).is_some_and(|answer| fits(wanted, answer)))
        }
        _ => wanted == answer,
    }
}

#[test]
fn engines_of_all_versions_are_answered_as_they_expect_and_leave_nothing() {
    needs_root!();
    let rig = with_plugin();
    let host = &rig.hosts[0];
    let socket = &socket(host);
    let before = host.namespace.run("ip -o link").lines().count();
    for (version, exchanges) in [("20.10", OF_20), ("28", OF_28)] {
        for line in exchanges.lines() {
            let exchange: Value = serde_json::from_str(line).expect("a line of JSON");
            let path = exchange["call"].as_str().expect("a path");
            let answer = call(socket, path, &exchange["request"]);
            assert!(fits(&exchange["answer"], &answer), "engine {version}, {line}: {answer}");
        }
        assert_eq!(host.json(&["ps"]), json!([]), "nothing is left of engine {version}");
        assert_eq!(host.namespace.run("ip -o link").lines().count(), before);
        let networks = host.json(&["network", "ls"]);
        assert_eq!(networks.as_array().map(Vec::len), Some(3), "{networks}");
    }
}

#[test]
fn whatever_is_said_to_the_plugin_the_agent_refuses_what_is_wrong_and_works_on() {
    needs_root!();
    let rig = with_plugin();
    let host = &rig.hosts[0];
    let socket = &socket(host);
    let [net, other, end] = ["1", "2", "e"].map(|digit| digit.repeat(64));
    let refused = |path: &str, request: &Value| {
        let answer = call(socket, path, request);
        let key = if path.starts_with("/Ipam") { "Error" } else { "Err" };
        let text = answer[key].as_str().unwrap_or_else(|| panic!("{path} {request}: {answer}")).to_owned();
        assert!(!text.is_empty() && text.len() < 600, "{text}");
        text
    };
    let pool = json!({"AddressSpace": "LocalDefault", "Pool": "10.5.0.0/24", "Gateway": "10.5.0.1/24"});
    let network = json!({"NetworkID": net, "Options": {}, "IPv4Data": [pool], "IPv6Data": []});
    let endpoint = |address: &str, mac: &str| json!({"NetworkID": net, "EndpointID": end, "Interface": {"Address": address, "MacAddress": mac}});
    let at = json!({"NetworkID": net, "EndpointID": end});

    for request in [&at, &json!({"NetworkID": other, "EndpointID": other})] {
        for path in ["/NetworkDriver.Leave", "/NetworkDriver.DeleteEndpoint", "/NetworkDriver.DeleteNetwork"]
        {
            assert_eq!(call(socket, path, request), json!({}), "what is not there is gone");
        }
    }
    for path in ["/IpamDriver.ReleasePool", "/IpamDriver.ReleaseAddress"] {
        assert_eq!(call(socket, path, &json!({"PoolID": "nonsense", "Address": "x"})), json!({}));
    }
    assert!(refused("/NetworkDriver.Join", &at).contains("not found"), "join before create");
    assert!(refused("/NetworkDriver.CreateEndpoint", &endpoint("", "")).contains("knows nothing"));
    assert_eq!(call(socket, "/NetworkDriver.CreateNetwork", &network), json!({}));
    assert_eq!(call(socket, "/NetworkDriver.CreateNetwork", &network), json!({}), "the same again");

    for bad in
        ["/../../etc/passwd%00", "", "1", &net.to_uppercase().replace('1', "A"), &net[1..], &"é".repeat(32)]
    {
        refused("/NetworkDriver.CreateNetwork", &json!({"NetworkID": bad}));
        refused("/NetworkDriver.DeleteEndpoint", &json!({"NetworkID": net, "EndpointID": bad}));
    }
    for options in [
        json!({"com.docker.network.generic": {"weft.vni": 5}}),
        json!({"com.docker.network.generic": {"weft.driver": "nonsense"}}),
        json!({"com.docker.network.generic": {"weft.network": "nonsense"}}),
        json!({"com.docker.network.generic": {"colour": "x".repeat(50_000)}}),
    ] {
        let mut request = network.clone();
        request["NetworkID"] = json!(other);
        request["Options"] = options;
        refused("/NetworkDriver.CreateNetwork", &request);
    }
    for subnet in ["10.5.0.0/25", "nonsense", "10.6.0.1/24", "224.0.0.0/8", "10.6.0.0/24/24"] {
        let mut request = network.clone();
        request["NetworkID"] = json!(other);
        request["IPv4Data"][0]["Pool"] = json!(subnet);
        refused("/NetworkDriver.CreateNetwork", &request);
    }
    for (address, mac) in [
        ("10.5.0.1/24", ""),
        ("10.6.0.9/24", ""),
        ("fd00::1/64", ""),
        ("nonsense", ""),
        ("10.5.0.9/24", "01:00:5e:00:00:01"),
        ("10.5.0.9/24", "ff:ff:ff:ff:ff:ff"),
        ("10.5.0.9/24", "00:00:00:00:00:00"),
        ("10.5.0.9/24", "nonsense"),
    ] {
        refused("/NetworkDriver.CreateEndpoint", &endpoint(address, mac));
    }
    for request in [
        json!({"PoolID": "weft/-/10.77.0.0/24", "Address": ""}),
        json!({"PoolID": "weft/../10.5.0.0/24", "Address": ""}),
        json!({"PoolID": "weft/-/10.5.0.0/24", "Address": "10.6.0.1"}),
        json!({"PoolID": "weft/-/10.5.0.0/24", "Address": "10.5.0.1"}),
        json!({"PoolID": "weft/-/10.5.0.0/24", "Address": "nonsense"}),
    ] {
        refused("/IpamDriver.RequestAddress", &request);
    }
    refused("/IpamDriver.RequestPool", &json!({"Pool": "10.5.0.0/16"}));
    refused("/IpamDriver.RequestPool", &json!({"Pool": "fd00::/64"}));
    refused("/IpamDriver.RequestPool", &json!({"Options": {"weft.network": "nonsense"}}));

    let made = call(socket, "/NetworkDriver.CreateEndpoint", &endpoint("10.5.0.9/24", ""));
    assert!(made["Interface"]["MacAddress"].is_string() && made["Interface"]["Address"].is_null(), "{made}");
    assert_eq!(
        call(socket, "/NetworkDriver.CreateEndpoint", &endpoint("10.5.0.9/24", "")),
        made,
        "the same again"
    );
    assert_eq!(call(socket, "/NetworkDriver.Leave", &at), json!({}), "leave without join");
    let mut join = at.clone();
    join["SandboxKey"] = json!("/".repeat(5_000));
    assert!(refused("/NetworkDriver.Join", &join).contains("too long"));
    join["SandboxKey"] = json!("/var/run/docker/netns/../../../etc/passwd");
    let joined = call(socket, "/NetworkDriver.Join", &join);
    assert_eq!(call(socket, "/NetworkDriver.Join", &join), joined, "joined again, it is the same interface");
    let interface = joined["InterfaceName"]["SrcName"].as_str().expect("a name");
    host.namespace.run(&format!("ip link show {interface}"));
    assert!(refused("/NetworkDriver.DeleteNetwork", &json!({"NetworkID": net})).contains("active endpoints"));
    assert!(host.refused(1, &["rm", "-f", &format!("docker-{}", &end[..12])]).contains("use docker"));

    let deep = "[".repeat(100_000);
    for body in
        ["", "{", "[]", "null", "5", "\u{0}", &deep, "{\"NetworkID\":5}", "{\"NetworkID\":null}", "{}"]
    {
        let answer = post(socket, "/NetworkDriver.CreateNetwork", body);
        let known = answer.contains("\"Err\":") || answer.starts_with("HTTP/1.1 413");
        assert!(known, "{body:.20}: {answer}");
    }
    assert!(post(socket, "/NetworkDriver.Join", &"x".repeat(1 << 20)).starts_with("HTTP/1.1 413"));
    let endless = "POST /NetworkDriver.Join HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100000000\r\n\r\n";
    assert!(send(socket, format!("{endless}{}", "x".repeat(200_000)).as_bytes()).starts_with("HTTP/1.1 413"));
    for path in [
        "/",
        "/NetworkDriver.Nonsense",
        "/NetworkDriver.Activate",
        "/Plugin.CreateNetwork",
        "/VolumeDriver.Create",
    ] {
        assert!(post(socket, path, "{}").starts_with("HTTP/1.1 404"), "{path}");
    }
    let get = "GET /Plugin.Activate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(send(socket, get.as_bytes()).starts_with("HTTP/1.1 405"));
    for nonsense in ["GET /\r\n", "\r\n\r\n", "POST / HTTP/9.9\r\n\r\n", "\u{0}\u{0}\u{0}\r\n\r\n"] {
        connect(socket).write_all(nonsense.as_bytes()).expect("somebody who hangs up at once");
    }
    // Whoever says nothing more holds a seat for some seconds, and keeps nobody else from one.
    let silent: Vec<UnixStream> = (0..100).map(|_| connect(socket)).collect();
    silent.iter().for_each(|mut stream| drop(stream.write_all(b"POST /NetworkDriver.Join HTTP/1.1\r\n")));
    assert_eq!(call(socket, "/NetworkDriver.DeleteEndpoint", &at), json!({}));
    assert_eq!(call(socket, "/NetworkDriver.DeleteEndpoint", &at), json!({}), "the same again");
    drop(silent);

    let ends: Vec<String> = (0..100).map(|n| format!("{n:03}{:061}", 0)).collect();
    let made: Vec<Value> = std::thread::scope(|scope| {
        let one = |(n, end): (usize, &String)| {
            let interface = json!({"Address": format!("10.5.0.{}/24", n + 100)});
            let request = json!({"NetworkID": net, "EndpointID": end, "Interface": interface});
            scope.spawn(move || call(socket, "/NetworkDriver.CreateEndpoint", &request))
        };
        let asked: Vec<_> = ends.iter().enumerate().map(one).collect();
        asked.into_iter().map(|asked| asked.join().expect("asked")).collect()
    });
    let mut macs: Vec<_> = made.iter().filter_map(|made| made["Interface"]["MacAddress"].as_str()).collect();
    macs.sort_unstable();
    macs.dedup();
    assert_eq!(macs.len(), 100, "each has a MAC address of its own: {made:?}");
    for end in &ends {
        call(socket, "/NetworkDriver.DeleteEndpoint", &json!({"NetworkID": net, "EndpointID": end}));
    }
    assert_eq!(call(socket, "/NetworkDriver.DeleteNetwork", &json!({"NetworkID": net})), json!({}));
    assert_eq!(host.json(&["ps"]), json!([]));
}
