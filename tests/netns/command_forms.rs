//! Command forms that Docker users know, each as it is written, on one host.

use std::process::{Command, Stdio};

use crate::rig::{Host, Rig, needs_root};
use crate::weft::{self, Answer};

/// What a form must do: exit with 0, and print each of these somewhere.
type Form = (&'static str, &'static [&'static str]);

/// Runs a form as a shell does, with `weft` for the program.
fn shell(host: &Host, form: &str) -> Answer {
    let weft = format!("{} --socket {}", weft::WEFT, host.socket().display());
    let script = format!("weft() {{ {weft} \"$@\"; }}; weft {form}");
    weft::answer(Command::new("sh").args(["-c", &script]).stdin(Stdio::null()))
}

/// Runs a form through Docker.
fn engine(form: &str) -> Answer {
    weft::answer(Command::new("sh").args(["-c", &format!("docker {form}")]).stdin(Stdio::null()))
}

/// Whether there is anything to compare with; says so where not.
fn an_engine_answers() -> bool {
    let answers = engine("version").code == 0;
    if !answers {
        let text = b"no Docker engine answers here: nothing is compared with it\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text);
    }
    answers
}

fn run_all(host: &Host, forms: &[Form]) {
    for (form, printed) in forms {
        let answer = shell(host, form);
        assert_eq!(answer.code, 0, "weft {form}: {answer:?}");
        for text in *printed {
            assert!(answer.stdout.contains(text), "weft {form} prints {text:?}: {answer:?}");
        }
    }
}

fn refuse_all(host: &Host, forms: &[(i32, &str, &str)]) {
    for (code, form, text) in forms {
        let answer = shell(host, form);
        assert_eq!(answer.code, *code, "weft {form}: {answer:?}");
        assert!(answer.stderr.contains(text), "weft {form} says {text:?}: {answer:?}");
    }
}

/// Removes what runs in the background, however the test ends.
struct Swept<'h>(&'h Host);

impl Drop for Swept<'_> {
    fn drop(&mut self) {
        shell(self.0, "rm -f $(weft ps -aq)");
    }
}

#[test]
fn networks_are_made_listed_inspected_and_removed_as_written() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    run_all(
        a,
        &[
            ("network create --driver overlay mon-reseau", &[]),
            ("network create --driver overlay --attachable prod", &[]),
            ("network create --driver overlay --opt encrypted sealed", &[]),
            ("network create -d overlay --subnet=192.168.100.0/24 --gateway=192.168.100.1 n1", &[]),
            ("network create -d overlay --subnet=192.168.101.0/24 --ip-range=192.168.101.128/25 n2", &[]),
            ("network create -d overlay --ipv6 --subnet=2001:db8:1::/64 six", &[]),
            (
                "network create -d overlay --label projet=ecommerce --label environnement=production \
          --label contact=admin@example.com boutique",
                &[],
            ),
            ("network create -d overlay --opt \"com.docker.network.driver.mtu=1400\" narrow", &[]),
            ("network ls", &["NETWORK ID", "NAME", "DRIVER", "SCOPE", "mon-reseau", "overlay"]),
            ("network ls --filter \"dangling=true\"", &["mon-reseau"]),
            ("network ls --filter driver=overlay", &["mon-reseau"]),
            ("network ls --filter label=environnement=production", &["boutique"]),
            ("network ls --filter name=bout --format '{{.Name}}'", &["boutique\n"]),
            ("network ls -q", &[]),
            ("network inspect mon-reseau", &["\"Name\": \"mon-reseau\"", "\"IPAM\"", "\"Containers\": {}"]),
            ("network inspect $(weft network ls -q) | grep Subnet", &["192.168.100.0/24", "2001:db8:1::/64"]),
            (
                "network inspect n1 n2 -f '{{.Name}} {{(index .IPAM.Config 0).Subnet}}'",
                &["n1 192.168.100.0/24\nn2 192.168.101.0/24\n"],
            ),
            (
                "network inspect boutique --format '{{json .Labels}}'",
                &[
                    "{\"contact\":\"admin@example.com\",\"environnement\":\"production\",\"projet\":\"ecommerce\"}\n",
                ],
            ),
            ("network rm n1 n2 six", &["n1\nn2\nsix\n"]),
            ("network rm narrow", &["narrow\n"]),
        ],
    );
    assert_eq!(shell(a, "network ls --filter label=environnement=production -q").stdout.len(), 13);
    assert_eq!(
        shell(a, "network ls --filter dangling=false --format '{{.Name}}'").stdout,
        "bridge\nhost\nnone\n"
    );
    assert_eq!(shell(a, "network ls --format json --filter name=sealed").json()["Name"], "sealed");
}

#[test]
fn what_docker_refuses_of_networks_is_refused_with_its_words() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    run_all(a, &[("network create -d overlay --subnet 10.9.0.0/24 taken", &[])]);
    refuse_all(
        a,
        &[
            (1, "network create -d overlay taken", "network with name taken already exists"),
            (
                1,
                "network create -d overlay --subnet 10.9.0.0/25 x",
                "Pool overlaps with other one on this address space",
            ),
            (
                1,
                "network create --gateway 10.0.0.1 x",
                "every ip-range or gateway must have a corresponding subnet",
            ),
            (
                1,
                "network create --subnet 10.0.0.0/8 --subnet 10.1.0.0/16 x",
                "multiple overlapping subnet configuration is not supported",
            ),
            (
                1,
                "network create --subnet 10.0.0.0/24 --gateway 10.0.1.1 x",
                "no matching subnet for gateway 10.0.1.1",
            ),
            (
                1,
                "network create -d overlay --subnet 10.0.0.1/24 x",
                "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24",
            ),
            (2, "network create --ipam-driver other x", "weft has the IPAM driver 'default' alone"),
            (2, "network create --config-only x", "--config-only"),
            (2, "network create --ipv4=false x", "every network has IPv4 addresses"),
            (1, "network rm nowhere", "network nowhere not found"),
            (1, "network inspect nowhere", "network nowhere not found"),
            (
                64,
                "network inspect taken -f '{{.Name'",
                "template parsing error: template: :1: unclosed action",
            ),
            (1, "network inspect taken -f '{{.Foo}}'", "map has no entry for key \"Foo\""),
            (1, "network ls --format '{{.Foo}}'", "executing \"\" at <.Foo>"),
            (
                1,
                "network ls --filter dangling=maybe",
                "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
            ),
            (1, "network ls --filter type=x", "invalid filter: 'type'='x'"),
            (1, "network ls --filter foo=bar", "invalid filter 'foo'"),
            (1, "network ls --filter foo", "bad format of filter (expected name=value)"),
            (
                1,
                "network prune",
                "WARNING! This will remove all custom networks not used by at least one container.\n\
                              Are you sure you want to continue? [y/N] network prune has been cancelled",
            ),
            (2, "network prune -f --filter until=soon", "until=soon is no time"),
            (1, "network prune -f --filter name=x", "invalid filter 'name'"),
        ],
    );
    assert_eq!(shell(a, "network inspect nowhere").stdout, "[]\n", "as Docker prints what it has found");
    assert_eq!(shell(a, "network rm -f nowhere").code, 0, "what is not there is no fault of -f");
}

#[test]
fn prune_takes_networks_that_nothing_is_attached_to_and_no_other() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    run_all(
        a,
        &[
            ("network create -d overlay --label environnement=test essai", &[]),
            ("network create -d overlay used", &[]),
            ("network create -d overlay idle", &[]),
            ("sandbox create web", &["web"]),
            ("network connect used web", &[]),
            ("network prune -f --filter until=2020-01-01", &[]),
            ("network prune -f --filter \"label=environnement=test\"", &["Deleted Networks:\nessai\n\n"]),
            ("network ls --filter type=custom --format '{{.Name}}'", &["idle\nused\n"]),
            ("network prune --force", &["Deleted Networks:\nidle\n\n"]),
            ("network disconnect used web", &[]),
            ("sandbox rm web", &["web"]),
        ],
    );
    let mut yes = a.command(&["network", "prune"]);
    let mut child = yes.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), b"y\n").expect("answered");
    let output = child.wait_with_output().expect("ended");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Deleted Networks:\nused\n\n");
    assert_eq!(shell(a, "network prune -f").stdout, "", "with nothing to do it says nothing");
}

#[test]
fn sandboxes_run_and_are_looked_at_as_written() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let _swept = Swept(a);
    run_all(
        a,
        &[
            ("network create -d overlay --subnet 172.28.0.0/16 --ip-range=172.28.5.0/24 app-network", &[]),
            ("network create -d overlay back", &[]),
            ("run -d --name app1 --network app-network -- sleep 300", &[]),
            ("run -d --name mon-app --network app-network --ip 172.28.5.10 -e KEY=VALUE -- sleep 300", &[]),
            ("run -d --name both --network app-network --network back -- sleep 300", &[]),
            ("exec both ip -o link", &["eth0", "eth1"]),
            ("exec mon-app sh -c 'echo $KEY'", &["VALUE\n"]),
            ("exec app1 ping -c 1 -W 5 172.28.5.10", &[" 0% packet loss"]),
            ("exec app1 ping -c 1 -W 5 mon-app", &[" 0% packet loss"]),
            ("exec app1 busybox nslookup mon-app", &["127.0.0.11", "172.28.5.10"]),
            ("run --rm --network none -- ip addr", &["LOOPBACK"]),
            ("run --rm -it --net=host -- ip addr", &["u0"]),
            ("run -d --network host --name on-host -- sleep 300", &[]),
            ("run --rm --network container:mon-app -- ip addr", &["172.28.5.10"]),
            ("inspect mon-app | grep NetworkMode", &["\"NetworkMode\": \"app-network\""]),
            (
                "inspect both --format '{{range $net, $conf := .NetworkSettings.Networks}}{{$net}} {{end}}'",
                &["app-network back \n"],
            ),
            (
                "network inspect app-network --format \
          '{{range .Containers}}{{.Name}} - {{.IPv4Address}}{{println}}{{end}}'",
                &["mon-app - 172.28.5.10/16\n"],
            ),
            ("network inspect back --format '{{range .Containers}}{{.Name}} {{end}}'", &["both \n"]),
            ("network disconnect app-network both", &[]),
            ("network connect app-network both", &[]),
            ("ps --filter network=back --format '{{.Names}}: {{.Networks}}'", &["both: app-network,back\n"]),
            (
                "stop $(weft network inspect app-network --format '{{range .Containers}}{{.Name}} {{end}}')",
                &["app1\n", "mon-app\n", "both\n"],
            ),
            ("network rm app-network", &["app-network\n"]),
            ("rm both mon-app app1", &["both\nmon-app\napp1\n"]),
            ("completion bash", &["complete -F _weft"]),
        ],
    );
}

#[test]
fn a_docker_engine_answers_the_same_forms_in_the_same_shape() {
    needs_root!();
    if !an_engine_answers() {
        return;
    }
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let name = format!("weft-forms-{}", std::process::id());
    let create = format!("network create --subnet 10.213.7.0/24 --gateway 10.213.7.1 --label a=b {name}");
    let theirs = engine(&create);
    let ours = shell(a, &create.replace("network create", "network create -d overlay"));
    let forms = [
        "network ls --filter name=NAME".to_owned(),
        "network ls -q --no-trunc --filter name=NAME".to_owned(),
        "network ls --filter name=NAME --format '{{.Name}}|{{.IPv6}}|{{.Internal}}|{{.Label \"a\"}}'".to_owned(),
        "network ls --filter name=NAME --format 'table {{.Name}}\\t{{.Label \"a\"}}'".to_owned(),
        "network inspect NAME -f '{{.Name}} {{(index .IPAM.Config 0).Gateway}} {{len .Containers}} {{json .Labels}}'"
            .to_owned(),
        "network inspect NAME -f '{{range $k, $v := .Labels}}{{$k}}={{upper $v}}{{end}} {{printf \"%5s\" .Labels.a}}'"
            .to_owned(),
        "network inspect NAME -f '{{.Foo}}'".to_owned(),
        "network inspect NAME -f '{{.Name'".to_owned(),
        "network inspect nowhere-at-all".to_owned(),
        "network rm nowhere-at-all".to_owned(),
        "network rm -f nowhere-at-all".to_owned(),
        "network ls --filter dangling=maybe".to_owned(),
        "network create --gateway 10.0.0.1 NAME-2".to_owned(),
        "network rm NAME".to_owned(),
    ];
    let answers: Vec<(String, Answer, Answer)> = forms
        .iter()
        .map(|form| form.replace("NAME", &name))
        .map(|form| (form.clone(), engine(&form), shell(a, &form)))
        .collect();
    assert_eq!((theirs.code, theirs.stdout.len()), (ours.code, ours.stdout.len()), "{theirs:?} {ours:?}");
    for (form, theirs, ours) in &answers {
        // Ids are of equal length, drivers and scopes are not the same.
        let shape = |answer: &Answer| {
            let words = answer.stdout.lines().map(|line| line.split_whitespace().count());
            (answer.code, words.collect::<Vec<_>>(), answer.stderr.is_empty())
        };
        let versions = form.contains("rm -f");
        assert!(versions || shape(theirs) == shape(ours), "{form}: {theirs:?} {ours:?}");
        if form.contains("{{") && theirs.code == 0 {
            assert_eq!(theirs.stdout, ours.stdout, "{form}");
        }
    }
    assert!(answers[0].2.stdout.starts_with("NETWORK ID     NAME"), "{:?}", answers[0]);
}

#[test]
fn a_docker_engine_runs_containers_as_the_same_forms_run_sandboxes() {
    needs_root!();
    if !an_engine_answers() {
        return;
    }
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let _swept = Swept(a);
    let name = format!("weft-run-{}", std::process::id());
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/compose/busybox.sh");
    let imported = weft::answer(Command::new(recipe).arg(&name).stdin(Stdio::null()));
    assert_eq!(imported.code, 0, "{imported:?}");
    let _removed = Removed(&name);
    // NAME is this run's, IMAGE an image in Docker and `--` in weft.
    let forms = [
        ("network create --subnet 10.213.9.0/24 NAME", false),
        ("run -d --name NAME-1 --network NAME IMAGE sleep 300", false),
        ("run -d --name NAME-2 --network NAME --ip 10.213.9.77 -e KEY=VALUE IMAGE sleep 300", false),
        ("run --rm --network none IMAGE echo hello", true),
        ("run --rm --network host -p 8080:80 IMAGE echo hello", true),
        ("run --rm --network container:NAME-1 IMAGE echo shared", true),
        ("exec NAME-2 sh -c 'echo $KEY'", false),
        ("ps --filter name=NAME-2 --format '{{.Names}} {{.Networks}} {{.State}}'", true),
        (
            "inspect NAME-2 --format '{{range $net, $conf := .NetworkSettings.Networks}}{{$net}} {{$conf.IPAddress}}{{end}}'",
            true,
        ),
        ("inspect NAME-1 --format '{{.HostConfig.NetworkMode}} {{.State.Status}} {{.State.Running}}'", true),
        ("inspect NAME-1 | grep NetworkMode | tr -d ' '", true),
        ("network inspect NAME --format '{{len .Containers}}'", true),
        ("network rm NAME", false),
        ("network disconnect NAME NAME-1", true),
        ("network disconnect NAME NAME-1", false),
        ("network connect NAME NAME-1", true),
        ("stop -t 0 NAME-1 NAME-2", true),
        ("rm NAME-1 NAME-2", true),
        ("network prune -f --filter label=nothing-has-it", true),
        ("network rm NAME", true),
    ];
    for (form, same) in forms {
        let form = form.replace("NAME", &name);
        let theirs = engine(&form.replace("IMAGE", &name));
        let ours = shell(a, &form.replace("IMAGE", "--"));
        assert_eq!(theirs.code, ours.code, "{form}: {theirs:?} {ours:?}");
        assert_eq!(theirs.stdout.len(), ours.stdout.len(), "{form}: {theirs:?} {ours:?}");
        if same {
            assert_eq!(theirs.stdout, ours.stdout, "{form}");
        }
    }
}

/// An image and what was run from it, removed however the test ends.
struct Removed<'n>(&'n str);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let name = self.0;
        let all = format!("docker rm -f {name}-1 {name}-2; docker network rm {name}; docker rmi {name}");
        weft::answer(Command::new("sh").args(["-c", &all]).stdin(Stdio::null()));
    }
}

#[test]
fn what_docker_shows_of_a_network_is_shown_under_the_same_keys() {
    needs_root!();
    if !an_engine_answers() {
        return;
    }
    let rig = Rig::cluster(1);
    let name = format!("weft-keys-{}", std::process::id());
    let create = format!("network create --subnet 10.213.8.0/24 --gateway 10.213.8.1 {name}");
    let inspect = format!("network inspect {name}");
    assert_eq!((engine(&create).code, shell(&rig.hosts[0], &create).code), (0, 0));
    let (theirs, ours) = (engine(&inspect), shell(&rig.hosts[0], &inspect));
    engine(&format!("network rm {name}"));
    let [theirs, ours] = [&theirs.stdout, &ours.stdout]
        .map(|text| serde_json::from_str::<serde_json::Value>(text).expect("JSON")[0].clone());
    same_keys("network", &theirs, &ours);
    for key in [
        "Driver",
        "EnableIPv6",
        "Internal",
        "Attachable",
        "Ingress",
        "ConfigOnly",
        "ConfigFrom",
        "Name",
        "Scope",
    ] {
        assert_eq!(theirs[key], ours[key], "{key}");
    }
    assert_eq!(theirs["IPAM"]["Config"], ours["IPAM"]["Config"]);
}

/// Each key of theirs is one of ours, in objects within too.
fn same_keys(path: &str, theirs: &serde_json::Value, ours: &serde_json::Value) {
    for (key, value) in theirs.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        let there = ours.get(key).unwrap_or_else(|| panic!("{path} is missing from {ours}"));
        same_keys(&path, value, there);
    }
}

#[test]
fn local_networks_are_made_and_used_as_written() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let _swept = Swept(a);
    run_all(
        a,
        &[
            (
                "network ls --filter type=builtin --format '{{.Name}} {{.Driver}} {{.Scope}}'",
                &["bridge bridge local\nhost host local\nnone null local\n"],
            ),
            ("network create mon-reseau", &[]),
            ("network create --driver bridge autre", &[]),
            (
                "network create --driver bridge --subnet=172.28.0.0/16 --ip-range=172.28.5.0/24 --gateway=172.28.5.254 \
              --label projet=monapp --label environnement=dev app-dev-network",
                &[],
            ),
            ("network create --subnet=192.168.100.0/24 --gateway=192.168.100.1 fixe", &[]),
            (
                "network create --driver bridge --subnet 10.0.0.0/24 --gateway 10.0.0.1 --ip-range 10.0.0.128/25 \
              --label projet=infra infra",
                &[],
            ),
            ("network create --ipv6 --subnet=2001:db8:1::/64 six", &[]),
            ("network create --opt \"com.docker.network.bridge.enable_icc=false\" isole", &[]),
            (
                "network create --opt \"com.docker.network.bridge.name=my-bridge\" \
              --opt \"com.docker.network.bridge.enable_icc=true\" nomme",
                &[],
            ),
            ("network create --opt \"com.docker.network.driver.mtu=1450\" petit", &[]),
            (
                "network ls --filter driver=bridge --format '{{.Name}}'",
                &["app-dev-network\n", "bridge\n", "petit\n"],
            ),
            ("network inspect fixe -f '{{(index .IPAM.Config 0).Gateway}}'", &["192.168.100.1\n"]),
            ("network inspect $(weft network ls -q) | grep Subnet", &["172.28.0.0/16", "10.0.0.0/24"]),
            ("run -d --name defaut -- sleep 300", &[]),
            (
                "inspect defaut -f '{{.HostConfig.NetworkMode}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'",
                &["bridge 172.17."],
            ),
            ("run -d --name hote --network host -- sleep 300", &[]),
            ("run -d --name mon-app --network app-dev-network --ip 172.28.5.10 -- sleep 300", &[]),
            ("run --rm --network app-dev-network -- ping -c 1 -W 5 172.28.5.10", &[" 0% packet loss"]),
            ("run -d -p 8000:5000 --name publie -- sleep 300", &[]),
            ("inspect publie -f '{{json .NetworkSettings.Ports}}'", &["5000/tcp", "8000"]),
            ("rm -f publie", &["publie\n"]),
            ("network create --driver macvlan -o parent=u0 segment", &[]),
            ("network inspect segment -f '{{.Driver}} {{.Options.parent}}'", &["macvlan u0\n"]),
            ("network rm segment", &["segment\n"]),
            ("network prune -f", &["autre", "fixe", "infra", "isole", "mon-reseau", "nomme", "petit", "six"]),
            ("network ls --format '{{.Name}}'", &["app-dev-network\nbridge\nhost\nnone\n"]),
        ],
    );
    refuse_all(
        a,
        &[
            (1, "network rm bridge", "bridge is a pre-defined network and cannot be removed"),
            (1, "network rm none", "none is a pre-defined network and cannot be removed"),
            (1, "network create host", "operation is not permitted on predefined host network"),
            (1, "network create -d host mine", "only one instance of \"host\" network is allowed"),
            (1, "network create -d nothing mine", "nothing"),
            (
                1,
                "network create --subnet 172.28.9.0/24 mine",
                "Pool overlaps with other one on this address space",
            ),
            (
                1,
                "network connect host defaut",
                "cannot connect container to host network - container must be created in host network mode",
            ),
            (1, "network rm app-dev-network", "network app-dev-network has active endpoints"),
            (
                1,
                "run --ip 172.17.0.99 -- true",
                "user-specified IP address is supported on user-defined networks only",
            ),
            (1, "run --rm --network app-dev-network --ip 10.99.0.1 -- true", "10.99.0.1"),
            (1, "network create --subnet 10.90.0.0/24 --ip-range 10.90.0.0/16 r", "CIDR block is bigger"),
            (
                1,
                "network create --subnet 10.90.0.0/24 --ip-range 10.91.0.0/25 r",
                "no matching subnet for range 10.91.0.0/25",
            ),
            (
                1,
                "network create --subnet 10.90.0.0/24 --gateway 10.91.0.1 r",
                "no matching subnet for gateway 10.91.0.1",
            ),
            (
                1,
                "network create --subnet 10.90.0.0/24 --subnet 10.91.0.0/24 --ip-range 10.90.0.0/25 --ip-range 10.90.0.128/25 r",
                "cannot configure multiple ranges (10.90.0.128/25, 10.90.0.0/25) on the same subnet (10.90.0.0/24)",
            ),
            (
                1,
                "network create --subnet 10.90.0.0/24 --subnet 10.91.0.0/24 --gateway 10.90.0.1 --gateway 10.90.0.2 r",
                "cannot configure multiple gateways (10.90.0.2, 10.90.0.1) for the same subnet (10.90.0.0/24)",
            ),
            (1, "network disconnect host hote", "container was created in host network mode"),
            (1, "network disconnect app-dev-network defaut", "is not connected to"),
            (
                1,
                "network create -d macvlan -o parent=u0 -o macvlan_mode=x r",
                "requested macvlan mode 'x' is not valid, 'bridge' mode is the macvlan driver default",
            ),
            (
                1,
                "run --rm --network container:mon-app --dns 192.0.2.53 -- true",
                "conflicting options: dns and the network mode",
            ),
            (
                1,
                "run --rm --network container:mon-app --add-host a:192.0.2.9 -- true",
                "conflicting options: custom host-to-IP mapping and the network mode",
            ),
        ],
    );
}
