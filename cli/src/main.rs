//! The `weft` program: one agent per host, and the verbs that speak to it.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft::main()
}
