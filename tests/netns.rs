//! Hosts as network namespaces, each with a real agent: what a user relies on, shown on the binary itself.
//! Needs root; without it every test fails, or with `WEFT_ALLOW_SKIP=1` says that it was skipped.

#[path = "netns/agent.rs"]
mod agent;
#[path = "netns/attack.rs"]
mod attack;
#[path = "netns/audit.rs"]
mod audit;
#[path = "netns/bad_input.rs"]
mod bad_input;
#[path = "netns/bench.rs"]
mod bench;
#[path = "netns/bridge.rs"]
mod bridge;
#[path = "netns/bridge_options.rs"]
mod bridge_options;
#[path = "netns/capture.rs"]
mod capture;
#[path = "netns/churn.rs"]
mod churn;
#[path = "netns/command_forms.rs"]
mod command_forms;
#[path = "netns/command_line.rs"]
mod command_line;
#[path = "netns/dns.rs"]
mod dns;
#[path = "netns/docker.rs"]
mod docker;
#[path = "netns/docker_everywhere.rs"]
mod docker_everywhere;
#[path = "netns/docker_host.rs"]
mod docker_host;
#[path = "netns/docker_killed.rs"]
mod docker_killed;
#[path = "netns/docker_plugin.rs"]
mod docker_plugin;
#[path = "netns/docker_relay.rs"]
mod docker_relay;
#[path = "netns/doctor.rs"]
mod doctor;
#[path = "netns/everyone.rs"]
mod everyone;
#[path = "netns/faults.rs"]
mod faults;
#[path = "netns/flood.rs"]
mod flood;
#[path = "netns/frames.rs"]
mod frames;
#[path = "netns/gateway.rs"]
mod gateway;
#[path = "netns/greeter.rs"]
mod greeter;
#[path = "netns/guests.rs"]
mod guests;
#[path = "netns/hardening.rs"]
mod hardening;
#[path = "netns/inject.rs"]
mod inject;
#[path = "netns/isolation.rs"]
mod isolation;
#[path = "netns/joining.rs"]
mod joining;
#[path = "netns/kernel_peer.rs"]
mod kernel_peer;
#[path = "netns/keys.rs"]
mod keys;
#[path = "netns/kill.rs"]
mod kill;
#[path = "netns/leftovers.rs"]
mod leftovers;
#[path = "netns/macvlan.rs"]
mod macvlan;
#[path = "netns/names.rs"]
mod names;
#[path = "netns/namespace.rs"]
mod namespace;
#[path = "netns/paced.rs"]
mod paced;
#[path = "netns/pcap.rs"]
mod pcap;
#[path = "netns/publishing.rs"]
mod publishing;
#[path = "netns/rig.rs"]
mod rig;
#[path = "netns/rogue.rs"]
mod rogue;
#[path = "netns/sandboxes.rs"]
mod sandboxes;
#[path = "netns/sealed.rs"]
mod sealed;
#[path = "netns/spoof.rs"]
mod spoof;
#[path = "netns/taps.rs"]
mod taps;
#[path = "netns/traffic.rs"]
mod traffic;
#[path = "netns/truth.rs"]
mod truth;
#[path = "netns/wait.rs"]
mod wait;
#[path = "netns/weft.rs"]
mod weft;
#[path = "netns/wire_tap.rs"]
mod wire_tap;
