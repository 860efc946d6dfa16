//! Steps: what is done, and what is expected of it.

use std::collections::HashSet;

use super::devices::DeviceSpec;
use super::expect::{self, Check, Expect, Thing};
use super::machine::MachineSpec;
use super::matrix::Entry;
use super::ops::{Op, RULES};
use super::things::{MemorySpec, PoolSpec};
use crate::read::{Place, Reader, Table, Wrong, unknown};

mod decide;
mod parse;

pub(crate) use decide::known;

/// One step.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The op's name, for messages.
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    /// The number of the CPU that it runs on.
    pub(crate) cpu: usize,
    pub(crate) op: Op,
    pub(crate) expect: Expect,
}

/// What is expected at the end.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) place: Place,
    /// Maps and allocations that are not ended.
    pub(crate) live: Vec<String>,
    pub(crate) violations: u64,
    /// Granules of coherent memory that did not come back and are not in quarantine.
    pub(crate) kept_pages: u64,
    pub(crate) check: Check,
}

/// The things of a case, to look names up in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'c> {
    pub(super) devices: &'c [DeviceSpec],
    pub(super) pools: &'c [PoolSpec],
    pub(super) memories: &'c [MemorySpec],
}

impl<'c> Names<'c> {
    pub(super) fn new(
        devices: &'c [DeviceSpec],
        pools: &'c [PoolSpec],
        memories: &'c [MemorySpec],
    ) -> Self {
        Self { devices, pools, memories }
    }

    pub(super) fn device(&self, name: &str, place: &Place) -> Result<usize, Wrong> {
        find("device", name, place, self.devices.iter().map(|device| device.name.as_str()))
    }

    pub(super) fn pool(&self, name: &str, place: &Place) -> Result<usize, Wrong> {
        find("pool", name, place, self.pools.iter().map(|pool| pool.name.as_str()))
    }

    pub(super) fn memory(&self, name: &str, place: &Place) -> Result<usize, Wrong> {
        find("memory", name, place, self.memories.iter().map(|memory| memory.name.as_str()))
    }

    /// A memory or a pool.
    pub(super) fn thing(&self, name: &str, place: &Place) -> Result<Thing, Wrong> {
        let memories = self.memories.iter().map(|memory| memory.name.as_str());
        if let Some(pool) = self.pools.iter().position(|pool| pool.name == name) {
            return Ok(Thing::Pool(pool));
        }
        let all = memories.chain(self.pools.iter().map(|pool| pool.name.as_str()));
        find("memory or pool", name, place, all).map(Thing::Memory)
    }
}

fn find<'n>(
    what: &str,
    name: &str,
    place: &Place,
    names: impl Iterator<Item = &'n str> + Clone,
) -> Result<usize, Wrong> {
    let found = names.clone().position(|known| known == name);
    found.ok_or_else(|| place.wrong(unknown(what, name, names)))
}

/// The highest number of a CPU.
const LAST_CPU: usize = 7;

/// Former names of ops, accepted for one release: 0.1 said `finish`.
const RENAMED: [(&str, &str); 1] = [("finish", "unmap")];

pub(super) fn steps(
    tables: &[&Table],
    names: Names<'_>,
    machine: &MachineSpec,
    entry: &Entry,
) -> Result<Vec<Step>, Wrong> {
    let mut steps = Vec::new();
    let mut made = HashSet::new();
    for table in tables {
        let reader = Reader::new(table, "the step");
        let only = reader.texts("only")?;
        for (name, place) in &only {
            if !entry.all.iter().any(|known| known == name) {
                let all = entry.all.iter().map(String::as_str);
                return Err(place.wrong(unknown("entry of the matrix", name, all)));
            }
        }
        let here = |name: &str| entry.name.as_deref() == Some(name);
        if !only.is_empty() && !only.iter().any(|(name, _)| here(name)) {
            continue;
        }
        reader.text("label")?;
        let word = reader.need("op", reader.text("op")?)?;
        let called = RENAMED.iter().find(|(old, _)| *old == word).map_or(word, |(_, new)| new);
        let Some(rule) = RULES.iter().find(|rule| rule.op == called) else {
            let ops = RULES.iter().map(|rule| rule.op);
            return Err(reader.place_of("op").wrong(unknown("op", word, ops)));
        };
        if machine.plan_only && !matches!(rule.op, "decide") {
            let text = "a machine that is plan-only has 'decide' steps alone";
            return Err(reader.place_of("op").wrong(text));
        }
        let op = parse::op(&reader, rule.op, names, machine, &mut made)?;
        let expect = match reader.table("expect")? {
            Some(table) => expect::read(table, rule, names, machine)?,
            None => Expect::default(),
        };
        let cpu = if machine.plan_only { 0 } else { cpu(&reader)? };
        reader.finish()?;
        steps.push(Step { name: rule.op, place: table.place.clone(), cpu, op, expect });
    }
    Ok(steps)
}

/// The CPU that a step runs on.
fn cpu(reader: &Reader<'_>) -> Result<usize, Wrong> {
    let cpu = usize::try_from(reader.size("cpu")?.unwrap_or(0)).ok();
    let wrong = || reader.place_of("cpu").wrong(format!("a machine has the CPUs 0 to {LAST_CPU}"));
    cpu.filter(|cpu| *cpu <= LAST_CPU).ok_or_else(wrong)
}

pub(super) fn end(
    table: Option<&Table>,
    names: Names<'_>,
    machine: &MachineSpec,
    steps: &[Step],
    place: &Place,
) -> Result<End, Wrong> {
    let Some(table) = table else {
        let place = steps.last().map_or(place, |step| &step.place).clone();
        return Ok(End {
            place,
            live: Vec::new(),
            violations: 0,
            kept_pages: 0,
            check: Check::default(),
        });
    };
    let reader = Reader::new(table, "the end");
    let live = reader.texts("live")?.into_iter().map(|(name, _)| name.to_owned()).collect();
    let violations = reader.size("violations")?.unwrap_or(0);
    let kept_pages = reader.size("kept-pages")?.unwrap_or(0);
    let check = expect::check(&reader, names, machine)?;
    reader.finish()?;
    Ok(End { place: table.place.clone(), live, violations, kept_pages, check })
}
