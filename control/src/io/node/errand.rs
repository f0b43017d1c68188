//! What the kernel would not do of a removal that is decided and written down: told to who asked for it, and tried
//! again by each audit.

use std::collections::BTreeMap;

use super::{Node, Reply, answer, internal};
use crate::io::server::Answer;

/// A removal somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Errand(u64);

/// What is left over of removals under way.
#[derive(Debug, Default)]
pub(super) struct Errands {
    last: u64,
    left: BTreeMap<Errand, Vec<String>>,
}

impl Errands {
    pub(super) fn begin(&mut self) -> Errand {
        self.last += 1;
        Errand(self.last)
    }

    /// Notes what was not done; nobody waits for what has no errand.
    pub(super) fn note(&mut self, errand: Option<Errand>, fault: String) {
        if let Some(errand) = errand {
            self.left.entry(errand).or_default().push(fault);
        }
    }

    fn end(&mut self, errand: Errand) -> Vec<String> {
        self.left.remove(&errand).unwrap_or_default()
    }
}

impl Node {
    /// Answers when the kernel has done everything handed to it so far: well, or with what is left over. `done` is
    /// what holds whatever the kernel did.
    pub(super) fn answer_after(&mut self, errand: Errand, reply: Reply, well: Answer, done: String) {
        self.worker.hand(move |_| {
            move |node: &mut Self| {
                let left = node.errands.end(errand);
                let outcome = if left.is_empty() { Ok(well) } else { Err(internal(word(&done, &left))) };
                answer(reply, outcome);
            }
        });
    }
}

fn word(done: &str, left: &[String]) -> String {
    format!(
        "{done}, but not everything of it could be taken from the kernel: {}; the agent tries again every half minute",
        left.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_over_is_told_to_who_asked_and_to_nobody_else() {
        let mut errands = Errands::default();
        let (mine, other) = (errands.begin(), errands.begin());
        errands.note(Some(mine), "cannot delete v1".into());
        errands.note(None, "cannot delete v2".into());
        assert_eq!(errands.end(other), Vec::<String>::new());
        let left = errands.end(mine);
        let text = word("web is removed", &left);
        assert!(text.starts_with("web is removed, but") && text.contains("cannot delete v1"), "{text}");
        assert_eq!(errands.end(mine), Vec::<String>::new());
    }
}
