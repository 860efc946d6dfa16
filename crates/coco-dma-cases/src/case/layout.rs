//! Where everything lies: pools and memories in RAM, none over another.

use coco_dma::addr::{PhysAddr, PhysRange, SLOT};

use super::machine::MachineSpec;
use super::things::{MemorySpec, MemoryState, PoolSpec};
use crate::read::{Place, Wrong};

/// The most bytes of a memory that lies in no run.
const MOST_UNLOCATED: u64 = 64 << 20;

/// The smallest page of all platforms, in bytes.
const PAGE: u64 = 4096;

/// Where the memories lie, by number; `None` for one that lies in no single run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    pub(crate) memories: Vec<Option<PhysRange>>,
}

/// The whole granules around a run.
pub(crate) fn whole(run: PhysRange, granule: u64) -> Option<PhysRange> {
    let base = run.base().raw() & !(granule - 1);
    let end = run.last().raw() | (granule - 1);
    PhysRange::new(PhysAddr::new(base), (end - base).checked_add(1)?)
}

/// Something that lies somewhere, with whole granules of its own.
struct Thing<'a> {
    name: &'a str,
    run: PhysRange,
    whole: PhysRange,
    /// Memories may share a granule where this is the same.
    state: Option<(MemoryState, Option<super::Truth>)>,
}

pub(super) fn lay_out(
    machine: &MachineSpec,
    pools: &[PoolSpec],
    memories: &[MemorySpec],
) -> Result<Layout, Wrong> {
    if machine.plan_only {
        pools_could_exist(pools)?;
        let run = |memory: &MemorySpec| {
            memory.at.and_then(|at| PhysRange::new(PhysAddr::new(at), memory.size))
        };
        return Ok(Layout { memories: memories.iter().map(run).collect() });
    }
    let granule = machine.regime.granule();
    let mut things: Vec<Thing<'_>> = Vec::new();
    for pool in pools {
        let run = pool.range;
        in_ram(machine, &pool.name, run, &pool.at_place)?;
        if !run.is_aligned(granule) {
            let text = format!(
                "the pool '{}' at {run} is not made of whole granules of {granule:#x} bytes",
                pool.name
            );
            return Err(pool.at_place.wrong(text));
        }
        let thing = Thing { name: &pool.name, run, whole: run, state: None };
        add(&mut things, thing, &pool.at_place)?;
    }
    let mut places: Vec<Option<PhysRange>> = vec![None; memories.len()];
    // Those that say where they lie come first; the rest takes what is left.
    for fixed in [true, false] {
        for (memory, place) in memories.iter().zip(&mut places) {
            if memory.at.is_some() == fixed {
                *place = locate(machine, memory, &mut things)?;
            }
        }
    }
    Ok(Layout { memories: places })
}

/// Pools that nobody builds could be built all the same: each begins with a page, has room for a slot,
/// and lies over no other.
fn pools_could_exist(pools: &[PoolSpec]) -> Result<(), Wrong> {
    for (index, pool) in pools.iter().enumerate() {
        let (name, run) = (&pool.name, pool.range);
        let wrong = |text: String| Err(pool.at_place.wrong(text));
        if run.len() < SLOT {
            return wrong(format!(
                "the pool '{name}' is smaller than a slot, which has {SLOT} bytes"
            ));
        }
        if !run.base().raw().is_multiple_of(PAGE) {
            let at = run.base();
            return wrong(format!(
                "the pool '{name}' at {at} does not begin with a page of {PAGE}"
            ));
        }
        if let Some(other) = pools.iter().take(index).find(|other| other.range.overlaps(run)) {
            return wrong(format!(
                "the pool '{name}' at {run} overlaps '{}' at {}",
                other.name, other.range
            ));
        }
    }
    Ok(())
}

fn locate<'a>(
    machine: &MachineSpec,
    memory: &'a MemorySpec,
    things: &mut Vec<Thing<'a>>,
) -> Result<Option<PhysRange>, Wrong> {
    let wrong = |text: String| Err(memory.at_place.wrong(text));
    let name = &memory.name;
    if memory.state == MemoryState::Unlocated {
        return match (memory.at, memory.size) {
            (Some(_), _) => wrong(format!("'{name}' is unlocated: leave 'at' out")),
            (_, 1..=MOST_UNLOCATED) => Ok(None),
            _ => wrong(format!("'{name}' is empty or longer than 64 MiB")),
        };
    }
    let granule = machine.regime.granule();
    let run = match memory.at {
        Some(at) => PhysRange::new(PhysAddr::new(at), memory.size),
        None => free(machine, memory.size, granule, things),
    };
    let Some(run) = run else {
        return wrong(match memory.at {
            Some(at) => {
                format!("'{name}': {:#x} bytes at {at:#x} are empty or wrap", memory.size)
            }
            None => format!("there is no free RAM for the {:#x} bytes of '{name}'", memory.size),
        });
    };
    in_ram(machine, name, run, &memory.at_place)?;
    let Some(whole) = whole(run, granule) else {
        return wrong(format!("'{name}' at {run} is past the address space"));
    };
    if memory.state == MemoryState::Mixed && whole.len() < 2 * granule {
        return wrong(format!("'{name}' is mixed, which takes two granules"));
    }
    let state = Some((memory.state, memory.really));
    add(things, Thing { name, run, whole, state }, &memory.at_place)?;
    Ok(Some(run))
}

fn in_ram(machine: &MachineSpec, name: &str, run: PhysRange, place: &Place) -> Result<(), Wrong> {
    if machine.has(run) {
        return Ok(());
    }
    let ram: Vec<String> = machine.ram.iter().map(ToString::to_string).collect();
    Err(place.wrong(format!("'{name}' at {run} is beyond the RAM, which is {}", ram.join(", "))))
}

fn add<'a>(things: &mut Vec<Thing<'a>>, thing: Thing<'a>, place: &Place) -> Result<(), Wrong> {
    for other in things.iter() {
        if other.run.overlaps(thing.run) {
            return Err(place.wrong(format!(
                "'{}' at {} overlaps '{}' at {}",
                thing.name, thing.run, other.name, other.run
            )));
        }
        if other.whole.overlaps(thing.whole) && other.state != thing.state {
            return Err(place.wrong(format!(
                "'{}' shares a granule with '{}', but is in another state",
                thing.name, other.name
            )));
        }
    }
    things.push(thing);
    Ok(())
}

/// The lowest run of RAM in granules that nothing lies in.
fn free(machine: &MachineSpec, size: u64, granule: u64, things: &[Thing<'_>]) -> Option<PhysRange> {
    let long = size.checked_next_multiple_of(granule)?;
    for ram in &machine.ram {
        let mut at = ram.base();
        while let Some(run) = PhysRange::new(at, long).filter(|run| ram.contains(*run)) {
            match things
                .iter()
                .filter(|thing| thing.whole.overlaps(run))
                .max_by_key(|thing| thing.whole.last())
            {
                None => return PhysRange::new(at, size),
                Some(thing) => at = thing.whole.last().checked_add(1)?,
            }
        }
    }
    None
}
