//! `-e` and `--env-file`: variables of a command.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::args::KeyValue;
use crate::failure::{Failure, Outcome};

/// Longest file of variables, octets.
const MAX_FILE: u64 = 1 << 20;

/// The variables, those of files first.
///
/// # Errors
/// A file that cannot be read, or a line that is no variable.
pub(super) fn variables(files: &[PathBuf], flags: &[KeyValue]) -> Outcome<Vec<KeyValue>> {
    let mut all = Vec::new();
    for file in files {
        let found = std::fs::metadata(file).with_context(|| format!("read {}", file.display()))?;
        if found.len() > MAX_FILE {
            return Err(Failure::Usage(format!("{} is longer than 1 MB", file.display())));
        }
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        all.extend(lines(&text, file)?);
    }
    all.extend(flags.iter().cloned());
    Ok(all.into_iter().filter_map(resolve).collect())
}

fn lines(text: &str, file: &Path) -> Outcome<Vec<KeyValue>> {
    let content = text.lines().map(str::trim_start).enumerate();
    let content = content.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let parse = |(number, line): (usize, &str)| {
        let refused = |why| Failure::Usage(format!("{}, line {}: {why}", file.display(), number + 1));
        line.parse::<KeyValue>().map_err(refused)
    };
    content.map(parse).collect()
}

/// A variable without a value is the one of that name here, if there is one.
fn resolve(variable: KeyValue) -> Option<KeyValue> {
    if !variable.bare {
        return Some(variable);
    }
    std::env::var(&variable.key).ok().map(|value| KeyValue { value, bare: false, ..variable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_one_variable_a_line_and_flags_come_after_them() {
        let scratch = tempfile::tempdir().expect("a directory");
        let file = scratch.path().join("env");
        std::fs::write(&file, "# comment\n\nA=1\n  B=x=y\nPATH\nWEFT_NOT_SET_HERE\n").expect("written");
        let flags = ["A=2".parse().expect("a variable")];
        let all = variables(std::slice::from_ref(&file), &flags).expect("variables");
        let shown: Vec<_> = all.iter().map(|v| (v.key.as_str(), v.value.as_str())).collect();
        let path = std::env::var("PATH").expect("everybody has one");
        assert_eq!(shown, [("A", "1"), ("B", "x=y"), ("PATH", path.as_str()), ("A", "2")]);
        std::fs::write(&file, "A=1\n=2\n").expect("written");
        let refused = variables(std::slice::from_ref(&file), &[]).expect_err("no name").message();
        assert!(refused.contains("line 2"), "{refused}");
        assert!(variables(&[scratch.path().join("none")], &[]).is_err());
    }
}
