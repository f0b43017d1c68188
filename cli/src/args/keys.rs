//! Arguments of `weft keys`.

use clap::Subcommand;

use super::ReadArgs;

/// What to do with the keys of the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysVerb {
    /// List the epochs whose keys this node has, newest first, and how many members that are alive have them
    #[command(visible_alias = "list")]
    Ls(ReadArgs),
    /// Make a new key (on an admin's host); it is used as soon as every member has it. Prints its epoch
    Rotate,
}
