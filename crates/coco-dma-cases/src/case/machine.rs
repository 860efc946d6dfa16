//! The machine of a case.

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::regime::{Parameters, PlatformName, Regime};

use super::vocabulary::platforms;
use crate::read::{Place, Reader, Table, Wrong};

/// RAM at most, in bytes: a case is a small thing.
const MOST_RAM: u64 = 256 << 20;

/// The machine.
#[derive(Clone, Debug)]
pub(crate) struct MachineSpec {
    pub(crate) place: Place,
    pub(crate) platform: PlatformName,
    pub(crate) numbers: Parameters,
    pub(crate) regime: Regime,
    pub(crate) ram: Vec<PhysRange>,
    pub(crate) seed: u64,
    pub(crate) pages: bool,
    /// The longest run of pages that there is, in bytes.
    pub(crate) longest_run: Option<u64>,
    pub(crate) ledger: bool,
    pub(crate) quarantine_limit: Option<u64>,
    pub(crate) plan_only: bool,
}

pub(super) fn read(table: &Table) -> Result<MachineSpec, Wrong> {
    let reader = Reader::new(table, "the machine");
    let platform = reader.need("platform", reader.word("platform", &platforms())?)?;
    let numbers = Parameters {
        c_bit: reader.small("c-bit")?,
        ipa_bits: reader.small("ipa-bits")?,
        gpaw: reader.small("gpaw")?,
        vtom: reader.size("vtom")?,
        granule: reader.size("granule")?,
    };
    let regime = platform
        .regime(&numbers)
        .map_err(|wrong| reader.place().wrong(format!("no such machine: {wrong}")))?;
    let plan_only = reader.flag("plan-only")?.unwrap_or(false);
    let ram = ram(&reader, &regime, plan_only)?;
    let spec = MachineSpec {
        place: table.place.clone(),
        platform,
        numbers,
        regime,
        ram,
        seed: reader.size("seed")?.unwrap_or(0),
        pages: reader.flag("pages")?.unwrap_or(true),
        longest_run: reader.size("longest-run")?,
        ledger: reader.flag("ledger")?.unwrap_or(true),
        quarantine_limit: reader.size("quarantine-limit")?,
        plan_only,
    };
    reader.finish()?;
    Ok(spec)
}

fn ram(reader: &Reader<'_>, regime: &Regime, plan_only: bool) -> Result<Vec<PhysRange>, Wrong> {
    let tables = reader.tables("ram")?;
    if tables.is_empty() {
        let base = PhysAddr::new(0x4000_0000);
        let size = (16u64 << 20).max(regime.granule() * 4).min(MOST_RAM);
        let size = if plan_only { 0 } else { size };
        return Ok(PhysRange::new(base, size).into_iter().collect());
    }
    let mut ram: Vec<PhysRange> = Vec::new();
    let mut sum = 0u64;
    for table in tables {
        let each = Reader::new(table, "the RAM");
        let at = each.need("at", each.size("at")?)?;
        let size = each.need("size", each.size("size")?)?;
        each.finish()?;
        let wrong = |text: String| Err(table.place.wrong(text));
        let granule = regime.granule();
        let Some(range) = PhysRange::new(PhysAddr::new(at), size) else {
            return wrong(format!("{size:#x} bytes of RAM at {at:#x} are empty or wrap"));
        };
        if !range.is_aligned(granule) {
            return wrong(format!("RAM is made of whole granules of {granule:#x} bytes"));
        }
        if range.last().raw() > regime.memory_limit().raw() {
            let limit = regime.memory_limit();
            return wrong(format!("the RAM {range} is past this machine's last address {limit}"));
        }
        if let Some(other) = ram.iter().find(|other| other.overlaps(range)) {
            return wrong(format!("the RAM {range} overlaps the RAM {other}"));
        }
        sum = sum.saturating_add(size);
        if sum > MOST_RAM {
            return wrong("a case has at most 256 MiB of RAM".to_owned());
        }
        ram.push(range);
    }
    ram.sort_by_key(|range| range.base());
    Ok(ram)
}
