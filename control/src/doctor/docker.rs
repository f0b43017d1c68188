//! Docker's engine, and what it needs to see of weft.

use super::{Facts, Finding};

/// Oldest engine whose plugin messages weft is tried with.
const OLDEST: (u32, u32) = (20, 10);

/// Docker's engine.
#[derive(Debug, Clone)]
pub enum Engine {
    /// There is no socket at this path.
    Absent(String),
    /// There is, but nobody answers, or not us.
    Silent {
        /// The path.
        socket: String,
        /// Why.
        fault: String,
    },
    /// It answers.
    Answers {
        /// Its version.
        version: String,
        /// Whether it is part of a swarm.
        swarm: bool,
    },
}

/// The socket that the engine finds weft by.
#[derive(Debug, Clone)]
pub enum Plugin {
    /// There is none at this path.
    Absent(String),
    /// There is, but whoever has it does not answer as weft.
    Silent {
        /// The path.
        socket: String,
        /// Why.
        fault: String,
    },
    /// This process may not ask it, or not even look for it, at this path.
    Forbidden(String),
    /// It implements these.
    Answers(Vec<String>),
}

pub(super) fn engine(engine: &Engine) -> Finding {
    const CHECK: &str = "Docker";
    match engine {
        Engine::Absent(socket) => Finding::ok(CHECK, format!("no engine on this host (no {socket})")),
        Engine::Silent { socket, fault } => {
            Finding::warning(CHECK, format!("the engine does not answer at {socket}: {fault}"))
                .because(
                    "networks of weft are not made in it, and its containers get no names of other hosts",
                )
                .remedy("'systemctl status docker'; as another user than root: join the group 'docker'")
        }
        Engine::Answers { version, .. } if number(version) < OLDEST => {
            Finding::warning(CHECK, format!("engine {version}"))
                .because("weft is tried with engines from 20.10 on")
                .remedy("run a newer engine")
        }
        Engine::Answers { version, .. } => Finding::ok(CHECK, format!("engine {version} answers")),
    }
}

/// Major and minor number; what is no number counts as the newest.
fn number(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor),
        _ => (u32::MAX, 0),
    }
}

/// A swarm takes weft's port as soon as one of its overlay networks is used.
pub(super) fn swarm(engine: &Engine) -> Option<Finding> {
    matches!(engine, Engine::Answers { swarm: true, .. }).then(|| {
        Finding::warning("Docker Swarm", "this engine is part of a swarm")
            .because("whichever of weft and Swarm's overlay comes second does not get 4789/udp")
            .remedy(
                "'docker swarm leave', a swarm with --data-path-port, or agents with --data-port on all hosts",
            )
    })
}

pub(super) fn plugin(facts: &Facts) -> Finding {
    const CHECK: &str = "Docker plugin";
    let engine_answers = matches!(facts.engine, Engine::Answers { .. });
    match &facts.plugin {
        Plugin::Absent(socket) if engine_answers => Finding::warning(CHECK, format!("there is no {socket}"))
            .because("'docker network create -d weft' does not find weft")
            .remedy("run the agent with --docker, in the mount namespace of the engine, and before it"),
        Plugin::Absent(socket) => Finding::ok(CHECK, format!("not served (no {socket})")),
        Plugin::Forbidden(socket) => Finding::ok(CHECK, format!("asking at {socket} takes root")),
        Plugin::Silent { socket, fault } => Finding::problem(CHECK, format!("{socket}: {fault}"))
            .because("Docker waits for a plugin that does not answer, also when it starts")
            .remedy(format!("start the agent, or remove {socket}")),
        Plugin::Answers(drivers) => {
            let missing: Vec<_> = ["NetworkDriver", "IpamDriver"]
                .into_iter()
                .filter(|one| !drivers.iter().any(|d| d == one))
                .collect();
            if missing.is_empty() {
                return Finding::ok(CHECK, "answers as network and IPAM driver");
            }
            Finding::problem(CHECK, format!("what answers there is no {}", missing.join(" and no ")))
                .because("'docker network create -d weft' does not work")
                .remedy("end the other program that serves a plugin named weft")
        }
    }
}
