//! A copy of the tree to do harm to: what the command and its cases are built from.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What is copied.
const PARTS: [&str; 7] =
    [".cargo", "Cargo.lock", "Cargo.toml", "benches", "cases", "crates", "xtask"];

/// Makes `to` the same as `from`, as far as a build needs it. Files that are the same already keep
/// their times, so that nothing is built twice.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for part in PARTS {
        let (from, to) = (from.join(part), to.join(part));
        same(&from, &to).with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(())
}

fn same(from: &Path, to: &Path) -> Result<()> {
    if from.is_file() {
        let bytes = fs::read(from)?;
        if fs::read(to).ok().as_ref() != Some(&bytes) {
            fs::write(to, bytes)?;
        }
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if name != "target" {
            same(&from.join(&name), &to.join(&name))?;
        }
    }
    // What was taken out of the one is not left in the other.
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if from.join(entry.file_name()).exists() {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::PARTS;

    /// Cargo reads the manifest of every member of the workspace, whichever it builds: without the
    /// benches, which became one, no sabotage was built at all.
    #[test]
    fn every_member_of_the_workspace_is_copied() {
        let manifest = DeTable::parse(include_str!("../../../Cargo.toml")).unwrap();
        let members = manifest.get_ref()["workspace"].get_ref()["members"].get_ref();
        let members = members.as_array().unwrap();
        assert!(!members.is_empty());
        for member in members.iter().map(|member| member.get_ref().as_str().unwrap()) {
            let top = member.split('/').next().unwrap();
            assert!(PARTS.contains(&top), "{member}");
        }
    }
}
