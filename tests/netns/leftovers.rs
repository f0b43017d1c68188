//! What weft made goes again: the machine is as it was before.

use crate::audit::{Snapshot, files_under, mounts_under, unmount};
use crate::everyone::pair;
use crate::rig::{Rig, needs_root};
use crate::wait::until;

#[test]
fn removing_networks_and_sandboxes_and_stopping_the_agents_leaves_the_hosts_as_they_were() {
    needs_root!();
    let rig = Rig::wire(&["a", "b"]);
    let before: Vec<Snapshot> = rig.hosts.iter().map(Snapshot::of).collect();
    rig.hosts.iter().for_each(|host| host.start(&[]));
    rig.meet(2);
    let at_rest: Vec<Snapshot> = rig.hosts.iter().map(Snapshot::of).collect();

    let (web, db) = pair(&rig);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    let namespaces = [&web, &db].map(|sandbox| sandbox.namespace.path());
    a.ok(&["run", "--rm", "--network", "blue", "--", "true"]);
    a.ok(&["network", "disconnect", "blue", "web"]);
    assert_eq!(
        web.namespace.run("ip -o link").lines().count(),
        1,
        "only the loopback stays in a detached sandbox"
    );
    a.ok(&["sandbox", "rm", "web"]);
    b.ok(&["sandbox", "rm", "db"]);
    until("a sees the network unused", || a.json(&["fdb", "blue"]).as_array().is_some_and(Vec::is_empty));
    a.ok(&["network", "rm", "blue"]);
    until("b sees it gone", || b.weft(&["network", "inspect", "blue"]).code != 0);
    drop((web, db, namespaces));
    for (host, at_rest) in rig.hosts.iter().zip(&at_rest) {
        at_rest.assert_returns(host);
    }

    rig.hosts.iter().for_each(crate::rig::Host::stop);
    for (host, before) in rig.hosts.iter().zip(&before) {
        before.assert_unchanged(host);
    }
}

#[test]
fn an_agent_stopped_in_use_keeps_its_sandboxes_and_a_removal_afterwards_takes_all_of_them() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "blue"]);
    a.sandbox("web", "blue", &[]);
    a.stop();
    a.start(&[]);
    let web = a.attached("web", "blue");
    assert!(web.ip4.is_some(), "the endpoint is there again");
    drop(web);
    a.ok(&["sandbox", "rm", "web"]);
    a.ok(&["network", "rm", "blue"]);
    a.stop();
    assert_eq!(mounts_under(&a.dir), Vec::<String>::new());
    assert!(files_under(&a.dir.join("run")).is_empty(), "{:?}", files_under(&a.dir.join("run")));
}

#[test]
fn a_network_in_use_anywhere_is_not_removed() {
    needs_root!();
    let rig = Rig::cluster(2);
    let (_web, _db) = pair(&rig);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    a.ok(&["sandbox", "rm", "web"]);
    let words = a.refused(1, &["network", "rm", "blue"]);
    assert!(words.contains("network blue has active endpoints"), "{words}");
    b.ok(&["sandbox", "rm", "db"]);
    until("a sees the network unused", || a.json(&["fdb", "blue"]).as_array().is_some_and(Vec::is_empty));
    a.ok(&["network", "rm", "blue"]);
}

#[test]
fn a_removal_the_kernel_refuses_says_so_and_is_finished_later() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "blue"]);
    drop([a.sandbox("web", "blue", &[]), a.sandbox("db", "blue", &[])]);
    let pins = mounts_under(&a.dir);
    let pin = |end: &str| pins.iter().find(|at| at.ends_with(end)).expect("it is pinned").clone();
    let hidden = pins.iter().find(|at| at.contains("/netns/.")).expect("the network's namespace").clone();

    // what looks like a port of weft's, and is a link the kernel never deletes
    let inside = crate::namespace::Namespace::open(std::path::Path::new(&hidden));
    inside.run("ip link set lo name vffffffffffff");
    let words = a.refused(1, &["network", "disconnect", "blue", "web"]);
    assert!(words.contains("web is disconnected from network blue"), "{words}");
    assert!(words.contains("vffffffffffff") && words.contains("tries again"), "{words}");
    assert!(a.json(&["fdb", "blue"]).as_array().is_some_and(|rows| rows.len() == 1), "the record decides");
    inside.run("ip link set vffffffffffff name lo");
    a.ok(&["network", "connect", "blue", "web"]);
    drop(inside);

    // a directory where the pinned namespace was cannot be removed as a file
    let busy = std::path::PathBuf::from(pin("/netns/web"));
    unmount(&pin("/netns/web"));
    std::fs::remove_file(&busy).expect("removed");
    std::fs::create_dir(&busy).expect("made");
    let words = a.refused(1, &["sandbox", "rm", "web"]);
    assert!(words.contains("sandbox web is removed") && words.contains("/netns/web"), "{words}");
    assert_eq!(a.json(&["sandbox", "ls"]).as_array().map(Vec::len), Some(1), "the record decides");
    std::fs::remove_dir(&busy).expect("removed");
    std::fs::write(&busy, "").expect("written");
    until("the next audit takes the rest", || !busy.exists());
    a.ok(&["sandbox", "create", "web"]);
}

#[test]
fn links_and_namespaces_removed_behind_the_agents_back_do_not_stop_it() {
    needs_root!();
    let rig = Rig::cluster(2);
    let (web, db) = pair(&rig);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    web.namespace.run(&format!("ip link del {}", web.interface));
    a.ok(&["sandbox", "rm", "web"]);
    let again = a.sandbox("web", "blue", &[]);
    rig.converge("blue");
    assert!(crate::traffic::pings(&again.namespace, db.ip4().into()), "a new sandbox works");
    b.ok(&["sandbox", "rm", "db"]);
}
