//! Pools and memories of a case.

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::plan::PoolInfo;
use coco_dma::regime::Regime;
use coco_dma::state::{CacheMode, PoolLabel, PoolOrigin, PoolUse, State};

use super::bytes::Bytes;
use super::expect::Truth;
use super::machine::MachineSpec;
use super::vocabulary::{ORIGINS, TRUTHS, USES, labels};
use crate::read::{Place, Reader, Table, Wrong, lookup};

/// A pool.
#[derive(Clone, Debug)]
pub(crate) struct PoolSpec {
    pub(crate) name: String,
    pub(crate) place: Place,
    /// Where it says where it lies.
    pub(crate) at_place: Place,
    pub(crate) label: PoolLabel,
    pub(crate) range: PhysRange,
    pub(crate) origin: PoolOrigin,
    pub(crate) open: bool,
    pub(crate) purpose: PoolUse,
    pub(crate) restricted: bool,
    pub(crate) node: Option<u16>,
    /// Some device names it: it is no pool of the machine.
    pub(crate) of_devices: bool,
}

impl PoolSpec {
    pub(crate) fn info(&self) -> PoolInfo {
        let Self { label, range, restricted, purpose, node, of_devices: own, .. } = *self;
        PoolInfo { label, range, restricted, purpose, own, node }
    }
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
    Peer,
    Plain,
    Unlocated,
}

impl MemoryState {
    /// How a driver maps it: registers are never cached.
    pub(crate) fn cache(self) -> CacheMode {
        match self {
            Self::Mmio | Self::Peer => CacheMode::Uncached,
            _ => CacheMode::WriteBack,
        }
    }
}

/// Memory of the driver.
#[derive(Clone, Debug)]
pub(crate) struct MemorySpec {
    pub(crate) name: String,
    pub(crate) place: Place,
    /// Where it says where it lies.
    pub(crate) at_place: Place,
    pub(crate) at: Option<u64>,
    pub(crate) size: u64,
    pub(crate) state: MemoryState,
    pub(crate) really: Option<Truth>,
    pub(crate) fill: Option<Bytes>,
    pub(crate) secret: bool,
}

/// The name of a thing, which no other of its kind may have.
pub(super) fn named<'t>(
    reader: &Reader<'t>,
    others: impl Iterator<Item = &'t str>,
) -> Result<&'t str, Wrong> {
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
            reader
                .place_of("at")
                .wrong(format!("the pool of {size:#x} bytes at {at:#x} is empty or wraps"))
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
            at_place: reader.place_of("at").clone(),
            label,
            range,
            origin,
            open: open.unwrap_or(true),
            purpose: reader.word("purpose", &USES)?.unwrap_or(PoolUse::All),
            restricted: reader.flag("restricted")?.unwrap_or(false),
            node: node(&reader)?,
            of_devices: false,
        });
        reader.finish()?;
    }
    Ok(pools)
}

/// The NUMA node of a pool or a device.
pub(super) fn node(reader: &Reader<'_>) -> Result<Option<u16>, Wrong> {
    let Some(node) = reader.size("node")? else { return Ok(None) };
    let number = u16::try_from(node);
    number.map(Some).map_err(|_| reader.place_of("node").wrong("a node is a number below 65536"))
}

/// The words of a memory's state on this machine.
fn states(regime: &Regime) -> &'static [(&'static str, MemoryState)] {
    use MemoryState::{
        AsItComes, ForeignPrivate, ForeignShared, Mixed, Mmio, Peer, Plain, Shared, Unaccepted,
        Unlocated, Untracked,
    };
    match regime {
        Regime::Open => {
            &[("ordinary", AsItComes), ("mmio", Mmio), ("peer", Peer), ("unlocated", Unlocated)]
        }
        Regime::Host(_) => &[
            ("encrypted", AsItComes),
            ("plain", Plain),
            ("mixed", Mixed),
            ("untracked", Untracked),
            ("mmio", Mmio),
            ("peer", Peer),
            ("unlocated", Unlocated),
        ],
        Regime::Guest(_) => &[
            ("private", AsItComes),
            ("shared", Shared),
            ("mixed", Mixed),
            ("unaccepted", Unaccepted),
            ("foreign-private", ForeignPrivate),
            ("foreign-shared", ForeignShared),
            ("untracked", Untracked),
            ("mmio", Mmio),
            ("peer", Peer),
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
            at_place: reader.place_of("at").clone(),
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
