//! The forms that people and scripts use must parse; the rest must be refused.

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Verb, clap::Error> {
    Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.verb)
}

fn refusal(line: &str) -> ErrorKind {
    parse(line).expect_err(line).kind()
}

#[test]
fn the_tree_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_documented_form_parses() {
    for line in [
        "weft init",
        "weft init --name a --advertise 192.0.2.1 --gossip-port 7947 --state-dir /s --token-file /t",
        "weft join weft1_abc",
        "weft join - --name b",
        "weft join --token-file /t --advertise eth0",
        "weft agent --init --token-file /t",
        "weft token create --ttl 7d --uses 3 --role admin --quiet",
        "weft token ls --json",
        "weft token revoke 0a1b",
        "weft node ls",
        "weft node remove b",
        "weft node revoke b --reason stolen",
        "weft leave --force",
        "weft doctor",
        "weft doctor --json --docker unix:///d.sock --docker-plugin-dir /p --advertise eth0 --run-dir /r",
        "weft cleanup --state-dir /s --run-dir /r",
        "weft agent",
        "weft agent --name a --advertise 192.0.2.1 --token-file k --join b --join c:7946 --data-port 4790 \
         --gossip-port 7947 --state-dir /s --run-dir /r --workers 2 --config c.toml",
        "weft network create n",
        "weft network create --driver overlay --attachable n",
        "weft network create --driver bridge --subnet=172.28.0.0/16 --ip-range=172.28.5.0/24 \
         --gateway=172.28.5.254 --label projet=monapp --label environnement=dev n",
        "weft network create --ipv6 --subnet=2001:db8:1::/64 n",
        "weft network create -d overlay --opt encrypted -o weft.vni=42 n",
        "weft network ls",
        "weft network list --filter dangling=true -f label=environnement=production --no-trunc",
        "weft network ls -q",
        "weft network inspect a b",
        "weft network rm a b c",
        "weft network connect --ip 10.0.0.9 --ip6 2001:db8::9 --mac 02:42:ac:11:00:02 --alias w n pid:12",
        "weft network disconnect -f n /run/netns/x",
        "weft sandbox create",
        "weft sandbox create s",
        "weft sandbox ls --json",
        "weft sandbox inspect s",
        "weft sandbox rm s t",
        "weft sandbox exec s -- ip address",
        "weft exec app1 ping app2",
        "weft run --rm -it --net=none -- sh -c true",
        "weft run --name web --network n --ip 10.0.0.9 -e A=1 -e B=2 -- server --port 80",
        "weft run -d --name web --network n --network-alias w -h web -- server",
        "weft run -dit --net host -w /srv --env-file e -e A -l a=b --label c -- sh",
        "weft run -d --network a --network b --restart no -- server",
        "weft ps -aq --no-trunc --filter status=exited --filter label=a=b",
        "weft ps --format json",
        "weft logs -f --tail all -t s",
        "weft logs -f --tail=-1 s",
        "weft start a b",
        "weft stop -t -1 a b",
        "weft restart --timeout 3 a",
        "weft kill -s TERM a",
        "weft rm -f a",
        "weft inspect -f {{.Name}} a b",
        "weft exec -dit -e A=1 --env-file e -w / a -- sh",
        "weft sandbox run -d -- sh",
        "weft sandbox ps -a",
        "weft completion bash",
        "weft network prune --force --filter label!=a --filter until=24h",
        "weft network ls --format {{.Name}} --filter dangling=1",
        "weft network inspect -f {{.Name}} a",
        "weft network create --ipv4=true --scope local --ipam-driver default n",
        "weft network connect --gw-priority 0 n s",
        "weft keys ls --json",
        "weft keys list",
        "weft keys rotate",
        "weft status --json",
        "weft peers --json",
        "weft fdb n --json",
        "weft stats --all --json",
        "weft --socket /x status",
        "weft status --socket /x",
        "weft demo --hosts 4 --keep",
        "weft bench web db",
        "weft bench web db --network n --only tcp,udp --streams 8 --sizes 64,1400 --json",
        "weft bench --self --quick",
        "weft bench --self --only iperf3,redis,http",
        "weft bench --serve db",
        "weft bench --self --underlay all --contender weft-sealed,wireguard-go --repeats 7 --seconds 0.5 --plot f.svg",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).expect_err(line));
    }
}

#[test]
fn wrong_usage_is_refused() {
    for (line, kind) in [
        ("weft", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("weft frobnicate", ErrorKind::InvalidSubcommand),
        ("weft network create", ErrorKind::MissingRequiredArgument),
        ("weft network create --frob n", ErrorKind::UnknownArgument),
        ("weft network create --label =x n", ErrorKind::ValueValidation),
        ("weft network ls -q --json", ErrorKind::ArgumentConflict),
        ("weft network connect --ip 10.0.0.999 n s", ErrorKind::ValueValidation),
        ("weft network connect --mac ff:ff:ff:ff:ff:ff n s", ErrorKind::ValueValidation),
        ("weft run --network n", ErrorKind::MissingRequiredArgument),
        ("weft network ls --json --format json", ErrorKind::ArgumentConflict),
        ("weft logs --tail few s", ErrorKind::ValueValidation),
        ("weft stop", ErrorKind::MissingRequiredArgument),
        ("weft completion cmd", ErrorKind::InvalidValue),
        ("weft agent --advertise=x --data-port 70000", ErrorKind::ValueValidation),
        ("weft agent --workers 0", ErrorKind::ValueValidation),
        ("weft demo --hosts 1", ErrorKind::ValueValidation),
        ("weft bench", ErrorKind::MissingRequiredArgument),
        ("weft bench web", ErrorKind::WrongNumberOfValues),
        ("weft bench --self web db", ErrorKind::ArgumentConflict),
        ("weft bench --self --network n", ErrorKind::ArgumentConflict),
        ("weft bench --self --serve db", ErrorKind::ArgumentConflict),
        ("weft bench --serve db web", ErrorKind::WrongNumberOfValues),
        ("weft bench web db --underlay veth", ErrorKind::ArgumentConflict),
        ("weft bench web db --contender raw", ErrorKind::ArgumentConflict),
        ("weft bench --self --contender quick", ErrorKind::InvalidValue),
        ("weft bench --self --seconds 0", ErrorKind::ValueValidation),
        ("weft bench --self --seconds NaN", ErrorKind::ValueValidation),
        ("weft bench --self --repeats 0", ErrorKind::ValueValidation),
        ("weft bench --self --sizes 55", ErrorKind::ValueValidation),
        ("weft bench --self --sizes 9001", ErrorKind::ValueValidation),
        ("weft bench --self --streams 0", ErrorKind::ValueValidation),
    ] {
        assert_eq!(refusal(line), kind, "{line}");
    }
}

#[test]
fn a_bad_address_is_named_with_dockers_words() {
    let error = parse("weft network connect --ip ten n s").expect_err("no address").to_string();
    assert!(error.contains("invalid IPv4 address: ten"), "{error}");
}

#[test]
fn flags_after_the_command_belong_to_the_command() {
    let Ok(Verb::Exec(args)) = parse("weft exec s ping -c 1 --json b") else { panic!("not exec") };
    assert_eq!(args.sandbox, "s");
    assert_eq!(args.command, ["ping", "-c", "1", "--json", "b"]);
    let Ok(Verb::Exec(args)) = parse("weft exec s -e A=1 -- -x --env B=2") else { panic!("not exec") };
    assert_eq!((args.env.len(), args.sandbox.as_str()), (1, "s"));
    assert_eq!(args.command, ["-x", "--env", "B=2"]);
}

#[test]
fn a_target_is_a_sandbox_a_process_or_a_path() {
    let target = |text: &str| text.parse::<Target>().expect("infallible");
    assert_eq!(target("web"), Target::Sandbox("web".to_owned()));
    assert_eq!(target("pid:12"), Target::Process(12));
    assert_eq!(target("pid:x"), Target::Sandbox("pid:x".to_owned()));
    assert_eq!(target("/run/netns/x"), Target::Path("/run/netns/x".into()));
}

#[test]
fn a_bare_option_has_the_empty_value() {
    let pair: KeyValue = "encrypted".parse().expect("pair");
    assert_eq!((pair.key.as_str(), pair.value.as_str()), ("encrypted", ""));
    let pair: KeyValue = "label=a=b".parse().expect("pair");
    assert_eq!((pair.key.as_str(), pair.value.as_str()), ("label", "a=b"));
}
