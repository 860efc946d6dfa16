//! The ids of the references, and which of them have a case.

use std::collections::BTreeSet;

use crate::case::Case;
use crate::read::{Reader, Wrong, parse, text_of};
use crate::suite::built_in_lists;

/// `ids.toml`: every row of the references.
#[derive(Clone, Debug)]
pub struct Ids {
    all: Vec<String>,
    no_case: Vec<(String, String)>,
}

/// Which rows have a case.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Rows with neither a case of their own nor a reason.
    pub missing: Vec<String>,
    /// Ids of cases that no reference has.
    pub unknown: Vec<String>,
    /// Rows that have a reason and a case.
    pub both: Vec<String>,
}

impl Ids {
    /// Reads the file.
    pub fn read(name: &str, text: &str) -> Result<Self, Wrong> {
        let table = parse(name, text)?;
        let reader = Reader::new(&table, "the list of ids");
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        for (id, place) in reader.texts("ids")? {
            if !seen.insert(id) {
                return Err(place.wrong(format!("'{id}' stands here twice")));
            }
            all.push(id.to_owned());
        }
        let mut no_case = Vec::new();
        if let Some(reasons) = reader.table("no-case")? {
            for (id, place, node) in &reasons.entries {
                if !seen.contains(id.as_str()) {
                    return Err(place.wrong(format!("no reference has '{id}'")));
                }
                no_case.push((id.clone(), text_of(node, id)?.to_owned()));
            }
        }
        reader.finish()?;
        Ok(Self { all, no_case })
    }

    /// The one that is built in.
    pub fn built_in() -> Result<Self, Wrong> {
        let [(name, text), _] = built_in_lists();
        Self::read(name, text)
    }

    /// Every row.
    pub fn all(&self) -> &[String] {
        &self.all
    }

    /// The rows that cannot be a case, each with why.
    pub fn no_case(&self) -> &[(String, String)] {
        &self.no_case
    }

    /// Which rows have a case of their own.
    pub fn coverage(&self, cases: &[Case]) -> Coverage {
        let have: BTreeSet<&str> = cases.iter().filter_map(|case| case.id.as_deref()).collect();
        let reason: BTreeSet<&str> = self.no_case.iter().map(|(id, _)| id.as_str()).collect();
        let all: BTreeSet<&str> = self.all.iter().map(String::as_str).collect();
        let own = |ids: Vec<&str>| ids.into_iter().map(str::to_owned).collect();
        let missing = self.all.iter().map(String::as_str);
        Coverage {
            missing: own(missing.filter(|id| !have.contains(id) && !reason.contains(id)).collect()),
            unknown: own(have.difference(&all).copied().collect()),
            both: own(have.intersection(&reason).copied().collect()),
        }
    }
}

/// The rows that are allowed to have no case yet.
pub fn allowed_missing() -> Result<Vec<String>, Wrong> {
    let [_, (name, text)] = built_in_lists();
    let table = parse(name, text)?;
    let reader = Reader::new(&table, "the list of missing cases");
    let missing = reader.texts("missing")?.into_iter().map(|(id, _)| id.to_owned()).collect();
    reader.finish()?;
    Ok(missing)
}
