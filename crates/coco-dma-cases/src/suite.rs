//! Many cases: found in folders or built in, run side by side.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::case::{Case, read_file};
use crate::read::{LONGEST, Wrong};
use crate::run::{self, Heed, Outcome, run_with};

include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// The folder of cases that are known not to hold yet, straight below the one that is run.
const OPEN: &str = "open";
/// Files of the folder that hold no case.
const NO_CASES: [&str; 2] = ["ids.toml", "missing.toml"];

/// A file of cases: how it is called, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, as messages tell it.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// Cases that were read, and the mistakes in those that could not be.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The cases, in the order of the files.
    pub cases: Vec<Case>,
    /// A mistake for each file that has one.
    pub wrong: Vec<Wrong>,
}

impl Loaded {
    /// Reads these files. Names have to be unique among all of them.
    pub fn read(files: &[File]) -> Self {
        let mut loaded = Self::default();
        for file in files {
            match read_file(&file.name, &file.text) {
                Ok(cases) => loaded.cases.extend(cases),
                Err(wrong) => loaded.wrong.push(wrong),
            }
        }
        let mut names = HashMap::new();
        for case in &loaded.cases {
            if let Some(other) = names.insert(case.name.clone(), case.place.clone()) {
                let text = format!("the name '{}' is taken by the case at {other}", case.name);
                loaded.wrong.push(case.place.wrong(text));
            }
        }
        loaded
    }
}

/// The case files that are built into this library.
pub fn built_in() -> Vec<File> {
    let files = BUILT_IN.iter().filter(|(name, _)| is_case(Path::new(name)));
    files
        .map(|(name, text)| File { name: format!("cases/{name}"), text: (*text).to_owned() })
        .collect()
}

/// The built-in text of `ids.toml`, and of `missing.toml`.
pub(crate) fn built_in_lists() -> [(&'static str, &'static str); 2] {
    NO_CASES.map(|wanted| {
        let found = BUILT_IN.iter().find(|(name, _)| *name == wanted);
        (wanted, found.map_or("", |(_, text)| text))
    })
}

/// The files at a path: itself, or all case files of a folder and its subfolders, sorted.
pub fn load(path: &Path) -> Result<Vec<File>, String> {
    let said = |error: io::Error| format!("{}: {error}", path.display());
    let mut paths = Vec::new();
    if fs::metadata(path).map_err(said)?.is_dir() {
        walk(path, &mut paths, 0).map_err(said)?;
        paths.sort();
    } else {
        paths.push(path.to_path_buf());
    }
    let mut files = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        let text = text_of(&path).map_err(|error| format!("{name}: {error}"))?;
        files.push(File { name, text });
    }
    Ok(files)
}

/// A file's text; of a longer one as much as says that it is too long.
fn text_of(path: &Path) -> io::Result<String> {
    let file = fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("this is no file"));
    }
    let mut text = String::new();
    let most = u64::try_from(LONGEST).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_string(&mut text)?;
    Ok(text)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>, depth: usize) -> io::Result<()> {
    // Folders that lead back into themselves end somewhere.
    if depth > 16 {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if fs::metadata(&path)?.is_dir() {
            // What is known not to hold yet runs only where it is asked for by name.
            if depth > 0 || path.file_name() != Some(OPEN.as_ref()) {
                walk(&path, found, depth + 1)?;
            }
        } else if is_case(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_case(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    name.ends_with(".toml") && !NO_CASES.contains(&name)
}

/// Runs cases on these paths, `jobs` at a time, and answers in their order.
pub fn run_all(cases: &[Case], jobs: usize, heed: Heed, paths: &[run::Path]) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, 256).min(cases.len().max(1)) {
            scope.spawn(|| {
                while let Some((index, case)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(index).map(|case| (index, case))
                } {
                    let outcome = run_with(case, heed, paths);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}
