//! The binary as people and scripts call it.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::rig::{Host, Rig, needs_root};
use crate::wait::until;
use crate::weft::{self, answer};

#[test]
fn exit_codes_tell_done_failed_misused_and_unreachable_apart() {
    needs_root!();
    let rig = network_of_one();
    let a = &rig.hosts[0];
    assert_eq!(a.weft(&["status"]).code, 0);
    assert!(a.refused(1, &["network", "inspect", "nowhere"]).contains("network nowhere not found"));
    assert!(a.refused(1, &["network", "rm", "nowhere"]).contains("network nowhere not found"));
    a.refused(1, &["sandbox", "rm", "nobody"]);
    a.refused(1, &["sandbox", "exec", "nobody", "--", "true"]);
    a.refused(1, &["fdb", "nowhere"]);
    a.refused(2, &["network", "create"]);
    a.refused(2, &["network", "frobnicate"]);
    a.refused(2, &["status", "--no-such-flag"]);
    a.refused(2, &["run", "--network", "blue"]);
    for verb in [&["status"][..], &["network", "ls"], &["run", "--", "true"], &["sandbox", "create", "x"]] {
        let unreachable = answer(weft::at(Path::new("/nonexistent/weft.sock")).args(verb));
        assert_eq!(unreachable.code, 3, "{verb:?}: {unreachable:?}");
        assert!(
            unreachable.stderr.contains("/nonexistent/weft.sock"),
            "the socket is named: {unreachable:?}"
        );
    }
    assert_eq!(
        answer(weft::weft().env("WEFT_SOCKET", a.socket()).arg("status")).code,
        0,
        "WEFT_SOCKET picks the agent"
    );
}

#[test]
fn run_and_exec_pass_on_how_their_command_ended() {
    needs_root!();
    let rig = network_of_one();
    let a = &rig.hosts[0];
    a.sandbox("web", "blue", &[]);
    for verb in [
        &["run", "--rm", "--network", "blue", "--"][..],
        &["sandbox", "exec", "web", "--"],
        &["exec", "web", "--"],
    ] {
        let code = |tail: &[&str]| a.command(verb).args(tail).stderr(Stdio::null()).status().expect("ran");
        assert_eq!(code(&["true"]).code(), Some(0), "{verb:?}");
        assert_eq!(code(&["sh", "-c", "exit 7"]).code(), Some(7), "{verb:?}");
        let killed = code(&["sh", "-c", "kill -9 $$"]);
        assert!(killed.code() == Some(137) || killed.signal() == Some(9), "{verb:?}: {killed:?}");
        assert_eq!(code(&["/nonexistent/program"]).code(), Some(127), "{verb:?}");
        assert_eq!(code(&["/etc/passwd"]).code(), Some(126), "{verb:?}");
    }
    let mut piped = a.command(&[
        "sandbox",
        "exec",
        "web",
        "-e",
        "GREETING=hello",
        "--",
        "sh",
        "-c",
        "cat; echo $GREETING",
    ]);
    let mut child = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), b"through ").expect("written");
    let output = child.wait_with_output().expect("ended");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "through hello\n",
        "input, output and environment are passed"
    );
}

#[test]
fn a_sandbox_of_run_goes_with_its_command_even_when_the_caller_is_killed() {
    needs_root!();
    let rig = network_of_one();
    let a = &rig.hosts[0];
    let sandboxes = || a.json(&["sandbox", "ls"]).as_array().map_or(0, Vec::len);

    a.ok(&["run", "--rm", "--name", "brief", "--network", "blue", "--", "true"]);
    until("the sandbox went with its command", || sandboxes() == 0);

    let mut child = a
        .command(&[
            "run",
            "--rm",
            "--name",
            "long",
            "--network",
            "blue",
            "--ip",
            "10.7.0.77",
            "--",
            "sleep",
            "600",
        ])
        .spawn()
        .expect("started");
    until("the sandbox is attached", || {
        a.json(&["sandbox", "ls"])[0]["Networks"]["blue"]["IPAddress"] == "10.7.0.77"
    });
    let sandbox = a.attached("long", "blue");
    child.kill().expect("killed");
    child.wait().expect("ended");
    until("the sandbox went with its killed caller", || sandboxes() == 0);
    until("so did the endpoint", || a.json(&["fdb", "blue"]).as_array().is_some_and(Vec::is_empty));
    until("so did the command", || processes_in(&sandbox.namespace) == 0);
}

#[test]
fn read_verbs_print_json_when_asked_and_tables_else() {
    needs_root!();
    let rig = network_of_one();
    let a = &rig.hosts[0];
    a.sandbox("web", "blue", &["--mac", "02:00:00:00:00:07"]);
    assert_eq!(a.json(&["network", "ls"])[0]["Name"], "blue");
    assert_eq!(a.json(&["network", "inspect", "blue"])[0]["Driver"], "overlay");
    assert_eq!(a.json(&["sandbox", "ls"])[0]["Name"], "web");
    assert_eq!(a.json(&["sandbox", "inspect", "web"])[0]["Name"], "web");
    assert_eq!(a.json(&["status"])["Node"], "a");
    assert_eq!(a.json(&["peers"])[0]["Name"], "a");
    assert_eq!(a.json(&["fdb", "blue"])[0]["Mac"], "02:00:00:00:00:07");
    assert!(a.json(&["stats"])["Dataplane"].is_object());

    let table = a.ok(&["network", "ls"]);
    assert!(table.starts_with("NETWORK ID     NAME            DRIVER    SCOPE"), "{table}");
    assert_eq!(table.lines().nth(1).map(|line| line.split_whitespace().count()), Some(4), "{table}");
    let id = a.ok(&["network", "ls", "-q", "--filter", "type=custom"]);
    assert_eq!(id.len(), 12, "{id}");
    assert_eq!(a.json(&["network", "inspect", &id])[0]["Name"], "blue", "an id's beginning is enough");
    for verb in [&["sandbox", "ls"][..], &["status"], &["peers"], &["fdb", "blue"], &["stats"]] {
        assert!(!a.ok(verb).is_empty(), "{verb:?} prints something");
    }
}

#[test]
fn what_was_asked_for_is_what_inspect_shows() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let id = a.ok(&[
        "network",
        "create",
        "--driver",
        "overlay",
        "--subnet=172.28.0.0/16",
        "--ip-range=172.28.5.0/24",
        "--gateway=172.28.5.254",
        "--label",
        "projet=monapp",
        "--label",
        "environnement=dev",
        "--opt",
        "com.docker.network.driver.mtu=1400",
        "--attachable",
        "app",
    ]);
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    let network = &a.json(&["network", "inspect", "app"])[0];
    assert_eq!(network["Id"], id.as_str());
    let config = &network["IPAM"]["Config"][0];
    assert_eq!(
        [&config["Subnet"], &config["IPRange"], &config["Gateway"]],
        ["172.28.0.0/16", "172.28.5.0/24", "172.28.5.254"]
    );
    assert_eq!([&network["Labels"]["projet"], &network["Labels"]["environnement"]], ["monapp", "dev"]);
    assert_eq!(network["MTU"], 1400);

    let web = a.sandbox("web", "app", &[]);
    assert!(
        web.ip4().to_string().starts_with("172.28.5."),
        "automatic addresses come from the range: {}",
        web.ip4()
    );
    assert!(web.namespace.run(&format!("ip link show {}", web.interface)).contains("mtu 1400"));
    let fixed = a.sandbox("fixed", "app", &["--ip", "172.28.9.9", "--mac", "02:00:00:00:00:09"]);
    assert_eq!(fixed.ip4().to_string(), "172.28.9.9");
    assert!(fixed.namespace.run(&format!("ip link show {}", fixed.interface)).contains("02:00:00:00:00:09"));
    assert_eq!(a.ok(&["network", "ls", "-q", "--filter", "label=environnement=dev"]), id[..12]);
    assert_eq!(a.ok(&["network", "ls", "-q", "--filter", "label=environnement=production"]), "");
    assert_eq!(a.ok(&["network", "ls", "-q", "--filter", "dangling=true"]), "");
}

#[test]
fn exec_works_where_the_run_directory_cannot_be_seen() {
    needs_root!();
    let rig = network_of_one();
    let a = &rig.hosts[0];
    let web = a.sandbox("web", "blue", &[]);
    let exec = format!("{} --socket {} sandbox exec web -- ip -o -4 addr", weft::WEFT, a.socket().display());
    let hidden = format!("mount -t tmpfs none {}/netns && exec {exec}", a.dir.join("run").display());
    let address = format!("{}/", web.ip4());
    let output = answer(Command::new("unshare").args(["-m", "sh", "-c", &hidden]));
    assert!(
        output.code == 0 && output.stdout.contains(&address),
        "in a mount namespace of its own: {output:?}"
    );

    let name = Named::after(a);
    let output = answer(Command::new("ip").args(["netns", "exec", &name.0, "sh", "-c", &exec]));
    assert!(output.code == 0 && output.stdout.contains(&address), "under ip netns exec: {output:?}");
    let run =
        format!("{} --socket {} run --rm --network blue -- ip -o -4 addr", weft::WEFT, a.socket().display());
    let output = answer(Command::new("ip").args(["netns", "exec", &name.0, "sh", "-c", &run]));
    assert!(output.code == 0 && output.stdout.contains("10.7.0."), "under ip netns exec: {output:?}");
}

#[test]
fn an_agent_in_a_mount_namespace_of_its_own_makes_sandboxes_that_all_can_use() {
    needs_root!();
    let rig = Rig::wire(&["a", "b"]);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    let name = Named::after(a);
    let direct = a.agent_command(a.ip4.into());
    let mut under = Command::new("ip");
    under.args(["netns", "exec", &name.0]).arg(direct.get_program()).args(direct.get_args());
    a.start_command(&mut under);
    b.start(&[]);
    rig.meet(2);
    let (web, db) = crate::everyone::pair(&rig);
    assert!(crate::traffic::pings(&db.namespace, web.ip4().into()), "the sandbox answers");
    assert!(
        weft::success(&mut web.exec("ip -o -4 addr")).contains(&web.ip4().to_string()),
        "exec reaches it"
    );
    a.kill();
    assert!(web.namespace.run("ip -o -4 addr").contains(&web.ip4().to_string()), "it outlives the agent");
    a.start_command(&mut under);
    rig.meet(2);
    rig.converge("blue");
    assert!(crate::traffic::pings(&db.namespace, web.ip4().into()), "the sandbox answers again");
    a.ok(&["sandbox", "rm", "web"]);
}

#[test]
fn namespaces_of_others_are_connected_by_process_and_by_path_and_only_let_go() {
    needs_root!();
    let rig = network_of_one();
    let a = &rig.hosts[0];
    let web = a.sandbox("web", "blue", &[]);
    let theirs = crate::namespace::Namespace::create();
    let mut sleeper = theirs.spawn(Command::new("sleep").arg("600"));
    let by_process = format!("pid:{}", sleeper.id());
    let by_path = format!("/proc/{}/ns/net", sleeper.id());
    for (target, address) in [(by_process, "10.7.0.200"), (by_path, "10.7.0.201")] {
        a.ok(&["network", "connect", "--ip", address, "blue", &target]);
        assert!(
            crate::traffic::pings(&web.namespace, address.parse().expect("an address")),
            "{target} answers"
        );
        a.ok(&["network", "disconnect", "blue", &target]);
        assert_eq!(theirs.run("ip -o link").lines().count(), 1, "only the loopback stays in {target}");
        a.json(&["sandbox", "ls"])
            .as_array()
            .into_iter()
            .flatten()
            .filter(|s| s["Adopted"] == true)
            .for_each(|sandbox| {
                a.ok(&["sandbox", "rm", sandbox["Name"].as_str().expect("a name")]);
            });
        assert!(sleeper.try_wait().expect("asked").is_none(), "the process goes on");
    }
    a.refused(1, &["network", "connect", "blue", "pid:4194304"]);
    a.refused(1, &["network", "connect", "blue", "/nonexistent/namespace"]);
    a.refused(1, &["network", "connect", "blue", "/etc/passwd"]);
    sleeper.kill().expect("killed");
    sleeper.wait().expect("ended");
}

#[test]
fn an_agent_needs_a_cluster_and_then_only_its_state_directory() {
    needs_root!();
    let rig = Rig::wire(&["a"]);
    let a = &rig.hosts[0];
    let mut alone = weft::weft();
    alone.args(["agent", "--state-dir"]).arg(a.dir.join("state")).arg("--run-dir").arg(a.dir.join("run"));
    let answer = a.ends(&mut alone);
    let said = "this host is in no cluster yet: 'weft init' makes one, 'weft join TOKEN' joins one";
    assert!(answer.code == 1 && answer.stderr.contains(said), "{answer:?}");
    let mut init = weft::weft();
    let answer = a.ends(init.args(["init", "--name", "first", "--state-dir"]).arg(a.dir.join("state")));
    assert!(answer.code == 0 && answer.stdout.contains("weft join weft1_"), "{answer:?}");
    let ready = std::os::unix::net::UnixDatagram::bind(a.dir.join("notify")).expect("bound");
    a.start_command(alone.env("NOTIFY_SOCKET", a.dir.join("notify")));
    let mut message = [0; 512];
    ready.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("timeout set");
    let len = ready.recv(&mut message).expect("word of being ready");
    assert!(String::from_utf8_lossy(&message[..len]).contains("READY=1"), "systemd is told");
    assert_eq!(a.json(&["status"])["Node"], "first");
    a.ok(&["network", "create", "-d", "overlay", "blue"]);
    a.sandbox("web", "blue", &[]);
    a.stop();
}

/// One host with an agent and a network `blue`.
fn network_of_one() -> Rig {
    let rig = Rig::cluster(1);
    rig.hosts[0].ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "blue"]);
    rig
}

/// A name for a host's namespace in `ip netns`, for as long as this lives.
struct Named(String);

impl Named {
    fn after(host: &Host) -> Self {
        let name = format!(
            "weft-{}-{}",
            std::process::id(),
            host.dir
                .parent()
                .and_then(Path::file_name)
                .map_or_else(String::new, |n| n.to_string_lossy().into_owned())
        );
        let mut holder = host.namespace.spawn(Command::new("sleep").arg("60"));
        let attached =
            weft::success(Command::new("ip").args(["netns", "attach", &name, &holder.id().to_string()]));
        holder.kill().expect("killed");
        holder.wait().expect("ended");
        assert_eq!(attached, "");
        Self(name)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// How many processes live in `namespace`.
pub(crate) fn processes_in(namespace: &crate::namespace::Namespace) -> usize {
    let inode = |path: &Path| std::fs::metadata(path).map(|ns| std::os::unix::fs::MetadataExt::ino(&ns)).ok();
    let own = inode(Path::new(&namespace.path()));
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    processes.filter(|process| own.is_some() && inode(&process.path().join("ns/net")) == own).count()
}
