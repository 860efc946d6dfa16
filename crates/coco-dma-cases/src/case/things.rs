//! Pools, devices and memories of a case.

use coco_dma::addr::{AddressLimit, AlignMask, Boundary, BusRange, PhysAddr, PhysRange};
use coco_dma::plan::{Limits, PoolFace};
use coco_dma::regime::Regime;
use coco_dma::state::{Attachment, PoolLabel, PoolOrigin, PoolUse, State, Trust};

use super::bytes::Bytes;
use super::expect::Truth;
use super::machine::MachineSpec;
use super::vocabulary::{IOMMU, ORIGINS, TRUST, TRUTHS, USES, labels};
use crate::read::{Place, Reader, Table, Wrong, lookup, unknown};

/// A pool.
#[derive(Clone, Debug)]
pub(crate) struct PoolSpec {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) label: PoolLabel,
    pub(crate) range: PhysRange,
    pub(crate) origin: PoolOrigin,
    pub(crate) open: bool,
    pub(crate) purpose: PoolUse,
    pub(crate) restricted: bool,
    /// Some device names it: it is no pool of the machine.
    pub(crate) of_devices: bool,
}

impl PoolSpec {
    pub(crate) fn face(&self) -> PoolFace {
        let Self { label, range, restricted, purpose, .. } = *self;
        PoolFace { label, range, restricted, purpose }
    }
}

/// A device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceSpec {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) trust: Trust,
    pub(crate) mask: u32,
    pub(crate) limits: Limits,
    pub(crate) bus_limit: Option<u64>,
    pub(crate) bus: Vec<BusRange>,
    pub(crate) coherent: bool,
    pub(crate) external_facing: bool,
    pub(crate) force_bounce: bool,
    pub(crate) attachment: Attachment,
    /// Its own pools, by number.
    pub(crate) pools: Vec<usize>,
    pub(crate) quota: Option<usize>,
    pub(crate) bound: bool,
}

/// What the layer's books have of a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryState {
    AsItComes,
    Shared,
    Mixed,
    Unaccepted,
    ForeignPrivate,
    ForeignShared,
    Untracked,
    Mmio,
    Plain,
    Unlocated,
}

/// Memory of the driver.
#[derive(Clone, Debug)]
pub(crate) struct MemorySpec {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) at: Option<u64>,
    pub(crate) size: u64,
    pub(crate) state: MemoryState,
    pub(crate) really: Option<Truth>,
    pub(crate) fill: Option<Bytes>,
    pub(crate) secret: bool,
}

fn named<'t>(reader: &Reader<'t>, others: impl Iterator<Item = &'t str>) -> Result<&'t str, Wrong> {
    let name = reader.need("name", reader.text("name")?)?;
    let mut others = others;
    if name.is_empty() || others.any(|other| other == name) {
        return Err(reader.place_of("name").wrong(format!("the name '{name}' is not its own")));
    }
    Ok(name)
}

pub(super) fn pools(tables: &[&Table]) -> Result<Vec<PoolSpec>, Wrong> {
    let mut pools: Vec<PoolSpec> = Vec::new();
    let mut names = Vec::new();
    for table in tables {
        let reader = Reader::new(table, "the pool");
        let name = named(&reader, names.iter().copied())?;
        names.push(name);
        let label = reader.need("label", reader.word("label", &labels())?)?;
        let at = reader.need("at", reader.size("at")?)?;
        let size = reader.need("size", reader.size("size")?)?;
        let range = PhysRange::new(PhysAddr::new(at), size).ok_or_else(|| {
            table.place.wrong(format!("the pool of {size:#x} bytes at {at:#x} is empty or wraps"))
        })?;
        let origin = reader.word("origin", &ORIGINS)?.unwrap_or(PoolOrigin::Adopted);
        let open = reader.flag("open")?;
        if origin == PoolOrigin::Adopted && open == Some(false) {
            let text = "an adopted pool is open; a convertible one may be closed";
            return Err(reader.place_of("open").wrong(text));
        }
        pools.push(PoolSpec {
            name: name.to_owned(),
            place: table.place.clone(),
            label,
            range,
            origin,
            open: open.unwrap_or(true),
            purpose: reader.word("purpose", &USES)?.unwrap_or(PoolUse::All),
            restricted: reader.flag("restricted")?.unwrap_or(false),
            of_devices: false,
        });
        reader.finish()?;
    }
    Ok(pools)
}

/// The devices. Marks the pools that they name as theirs.
pub(super) fn devices(
    tables: &[&Table],
    pools: &mut [PoolSpec],
    machine: &MachineSpec,
) -> Result<Vec<DeviceSpec>, Wrong> {
    let mut devices: Vec<DeviceSpec> = Vec::new();
    let mut names = Vec::new();
    for table in tables {
        let reader = Reader::new(table, "the device");
        let name = named(&reader, names.iter().copied())?;
        names.push(name);
        let device = device(&reader, name, pools, machine)?;
        reader.finish()?;
        for index in &device.pools {
            if let Some(pool) = pools.get_mut(*index) {
                pool.of_devices = true;
            }
        }
        devices.push(device);
    }
    if let Some(pool) = pools.iter().find(|pool| pool.restricted && !pool.of_devices) {
        let text = "a restricted pool belongs to a device: name it in a device's 'pools'";
        return Err(pool.place.wrong(text));
    }
    let shared = pools.iter().filter(|pool| !pool.of_devices).count();
    for device in devices.iter().filter(|device| device.bound) {
        let count = device.pools.len() + shared;
        if count > coco_dma::device::MAX_POOLS {
            return Err(device.place.wrong(format!(
                "the device '{}' would have {count} pools, its own and the machine's; the most \
                 are {}",
                device.name,
                coco_dma::device::MAX_POOLS
            )));
        }
    }
    Ok(devices)
}

fn device(
    reader: &Reader<'_>,
    name: &str,
    pools: &[PoolSpec],
    machine: &MachineSpec,
) -> Result<DeviceSpec, Wrong> {
    let wrong = |key, text: &str| Err(reader.place_of(key).wrong(text));
    let trust = reader.word("trust", &TRUST)?.unwrap_or_default();
    let bound = reader.flag("bound")?.unwrap_or(true);
    if trust == Trust::Accepted && !machine.regime.has_accepted_devices() && bound {
        let text = format!("no device can be accepted on '{}'", machine.platform.name());
        return wrong("trust", &text);
    }
    let mask = match reader.small("mask")?.unwrap_or(64) {
        bits @ 1..=64 => bits,
        _ => return wrong("mask", "a mask has 1 to 64 bits"),
    };
    let boundary = match reader.size("boundary")? {
        None => None,
        Some(bytes) => match Boundary::new(bytes) {
            None => return wrong("boundary", "a boundary is a power of two"),
            some => some,
        },
    };
    let Some(min_align) = AlignMask::new(reader.size("min-align-mask")?.unwrap_or(0)) else {
        return wrong("min-align-mask", "a min-align mask is ones from bit 0 up, as 0xfff");
    };
    let cache_line = reader.size("cache-line")?.unwrap_or(64);
    let segment = reader.size("segment")?;
    let limits =
        Limits { mask: AddressLimit::bits(mask), segment, boundary, min_align, cache_line };
    let mut own = Vec::new();
    for (pool, place) in reader.texts("pools")? {
        match pools.iter().position(|known| known.name == pool) {
            Some(index) => own.push(index),
            None => {
                let names = pools.iter().map(|pool| pool.name.as_str());
                return Err(place.wrong(unknown("pool", pool, names)));
            }
        }
    }
    let quota = reader.size("quota")?.map(|slots| usize::try_from(slots).unwrap_or(usize::MAX));
    let iommu = match machine.regime {
        Regime::Host(_) => Attachment::Passthrough,
        _ => Attachment::None,
    };
    Ok(DeviceSpec {
        name: name.to_owned(),
        place: reader.place().clone(),
        trust,
        mask,
        limits,
        bus_limit: reader.size("bus-limit")?,
        bus: bus_ranges(reader)?,
        coherent: reader.flag("coherent")?.unwrap_or(true),
        external_facing: reader.flag("external-facing")?.unwrap_or(false),
        force_bounce: reader.flag("force-bounce")?.unwrap_or(false),
        attachment: reader.word("iommu", &IOMMU)?.unwrap_or(iommu),
        pools: own,
        quota,
        bound,
    })
}

fn bus_ranges(reader: &Reader<'_>) -> Result<Vec<BusRange>, Wrong> {
    let mut ranges = Vec::new();
    for table in reader.tables("bus-ranges")? {
        let each = Reader::new(table, "the bus range");
        let cpu = each.need("cpu", each.size("cpu")?)?;
        let bus = each.need("bus", each.size("bus")?)?;
        let size = each.need("size", each.size("size")?)?;
        each.finish()?;
        let range = PhysRange::new(PhysAddr::new(cpu), size);
        let range = range.and_then(|range| BusRange::new(range, bus));
        ranges.push(range.ok_or_else(|| table.place.wrong("the bus range is empty or wraps"))?);
    }
    Ok(ranges)
}

/// The words of a memory's state on this machine.
fn states(regime: &Regime) -> &'static [(&'static str, MemoryState)] {
    use MemoryState::{
        AsItComes, ForeignPrivate, ForeignShared, Mixed, Mmio, Plain, Shared, Unaccepted,
        Unlocated, Untracked,
    };
    match regime {
        Regime::Open => &[("ordinary", AsItComes), ("mmio", Mmio), ("unlocated", Unlocated)],
        Regime::Host(_) => {
            &[("encrypted", AsItComes), ("plain", Plain), ("mmio", Mmio), ("unlocated", Unlocated)]
        }
        Regime::Guest(_) => &[
            ("private", AsItComes),
            ("shared", Shared),
            ("mixed", Mixed),
            ("unaccepted", Unaccepted),
            ("foreign-private", ForeignPrivate),
            ("foreign-shared", ForeignShared),
            ("untracked", Untracked),
            ("mmio", Mmio),
            ("unlocated", Unlocated),
        ],
    }
}

pub(super) fn memories(tables: &[&Table], machine: &MachineSpec) -> Result<Vec<MemorySpec>, Wrong> {
    let mut memories: Vec<MemorySpec> = Vec::new();
    let mut names = Vec::new();
    for table in tables {
        let reader = Reader::new(table, "the memory");
        let name = named(&reader, names.iter().copied())?;
        names.push(name);
        let state = match reader.text("state")? {
            None => MemoryState::AsItComes,
            Some(word) => {
                let what = format!("state of memory on '{}'", machine.platform.name());
                lookup(&what, word, states(&machine.regime))
                    .map_err(|text| reader.place_of("state").wrong(text))?
            }
        };
        let really = reader.word("really", &TRUTHS)?;
        if let Some(Truth::In(state)) = really
            && !machine.regime.states().contains(&state)
        {
            let text = format!("{state} memory does not exist on '{}'", machine.platform.name());
            return Err(reader.place_of("really").wrong(text));
        }
        let fill = reader.node("fill").map(|node| Bytes::read(node, "fill")).transpose()?;
        let secret = reader.flag("secret")?.unwrap_or(false);
        if secret && fill.is_some() {
            let text = "a secret has bytes of its own: leave 'fill' out";
            return Err(reader.place_of("fill").wrong(text));
        }
        memories.push(MemorySpec {
            name: name.to_owned(),
            place: table.place.clone(),
            at: reader.size("at")?,
            size: reader.need("size", reader.size("size")?)?,
            state,
            really,
            fill,
            secret,
        });
        reader.finish()?;
    }
    Ok(memories)
}

impl MemorySpec {
    /// The machine's truth about it.
    pub(crate) fn truth(&self, regime: &Regime) -> Truth {
        let comes = regime.states().first().copied().unwrap_or(State::Ordinary);
        match (self.really, self.state) {
            (Some(truth), _) => truth,
            (None, MemoryState::Shared | MemoryState::ForeignShared) => Truth::In(State::SHARED),
            (None, MemoryState::Mixed) => Truth::Mixed,
            (None, MemoryState::Unaccepted) => Truth::Unaccepted,
            (None, MemoryState::Plain) => Truth::In(State::PLAIN),
            (None, _) => Truth::In(comes),
        }
    }
}
