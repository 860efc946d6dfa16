//! The machine of a case.

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::iommu::IovaWindow;
use coco_dma::regime::{Parameters, PlatformName, Regime};

use super::vocabulary::platforms;
use crate::read::{Place, Reader, Table, Wrong};

/// RAM at most, in bytes: a case is a small thing.
const MOST_RAM: u64 = 256 << 20;

/// The most addresses that a domain gives out, in bytes: each page has its word.
const MOST_ADDRESSES: u64 = 4 << 30;

/// The IOMMU of the devices that are behind one.
#[derive(Clone, Debug)]
pub(crate) struct IommuSpec {
    /// Its page in bytes.
    pub(crate) page: u64,
    /// The addresses that its domain gives out. By default below the shortest mask that a case has
    /// use for.
    pub(crate) window: IovaWindow,
    /// Whether its driver can be asked what the table has.
    pub(crate) query: bool,
}

/// The machine.
#[derive(Clone, Debug)]
pub(crate) struct MachineSpec {
    pub(crate) place: Place,
    pub(crate) platform: PlatformName,
    pub(crate) numbers: Parameters,
    pub(crate) regime: Regime,
    pub(crate) ram: Vec<PhysRange>,
    /// Those of it that are not there at first.
    pub(crate) late: Vec<PhysRange>,
    pub(crate) seed: u64,
    pub(crate) pages: bool,
    /// The longest run of pages that there is, in bytes.
    pub(crate) longest_run: Option<u64>,
    pub(crate) ledger: bool,
    pub(crate) quarantine_limit: Option<u64>,
    pub(crate) plan_only: bool,
    pub(crate) iommu: IommuSpec,
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
    let (ram, late) = ram(&reader, &regime, plan_only)?;
    let spec = MachineSpec {
        place: table.place.clone(),
        platform,
        numbers,
        regime,
        ram,
        late,
        seed: reader.size("seed")?.unwrap_or(0),
        pages: reader.flag("pages")?.unwrap_or(true),
        longest_run: reader.size("longest-run")?,
        ledger: reader.flag("ledger")?.unwrap_or(true),
        quarantine_limit: reader.size("quarantine-limit")?,
        plan_only,
        iommu: iommu(&reader)?,
    };
    reader.finish()?;
    Ok(spec)
}

impl MachineSpec {
    /// Whether all of a run is RAM, across what stands side by side too.
    pub(crate) fn has(&self, run: PhysRange) -> bool {
        let mut at = run.base();
        // In ascending order.
        for ram in &self.ram {
            if ram.base() <= at && at <= ram.last() {
                if run.last() <= ram.last() {
                    return true;
                }
                let Some(next) = ram.last().checked_add(1) else { return false };
                at = next;
            }
        }
        false
    }
}

fn iommu(reader: &Reader<'_>) -> Result<IommuSpec, Wrong> {
    let page = reader.size("iommu-page")?.unwrap_or(4096);
    if !page.is_power_of_two() || !(4096..=1 << 30).contains(&page) {
        let text = "a page of an IOMMU is a power of two from 4 KiB to 1 GiB";
        return Err(reader.place_of("iommu-page").wrong(text));
    }
    let (base, len) = match reader.table("iommu-window")? {
        None => (0x10_0000, 0x60_0000),
        Some(table) => {
            let each = Reader::new(table, "the IOMMU's window");
            let at = each.need("at", each.size("at")?)?;
            let size = each.need("size", each.size("size")?)?;
            each.finish()?;
            (at, size)
        }
    };
    let wrong = |text: String| Err(reader.place_of("iommu-window").wrong(text));
    if len > MOST_ADDRESSES {
        return wrong("a window has at most 4 GiB of addresses".to_owned());
    }
    let Some(window) = IovaWindow::new(base, len) else {
        return wrong(format!("{len:#x} addresses from {base:#x} on are none, or wrap"));
    };
    // Page 0 is never given out.
    let first = base.max(1).checked_next_multiple_of(page);
    if first
        .and_then(|first| first.checked_add(page - 1))
        .is_none_or(|last| last > window.last().raw())
    {
        return wrong(format!("the window has no whole page of {page:#x} bytes past address 0"));
    }
    Ok(IommuSpec { page, window, query: reader.flag("iommu-query")?.unwrap_or(true) })
}

/// All of it, and what is not there at first.
fn ram(
    reader: &Reader<'_>,
    regime: &Regime,
    plan_only: bool,
) -> Result<(Vec<PhysRange>, Vec<PhysRange>), Wrong> {
    let tables = reader.tables("ram")?;
    if tables.is_empty() {
        let base = PhysAddr::new(0x4000_0000);
        let size = (16u64 << 20).max(regime.granule() * 4).min(MOST_RAM);
        let size = if plan_only { 0 } else { size };
        return Ok((PhysRange::new(base, size).into_iter().collect(), Vec::new()));
    }
    let (mut ram, mut all_late): (Vec<PhysRange>, _) = (Vec::new(), Vec::new());
    let mut sum = 0u64;
    for table in tables {
        let each = Reader::new(table, "the RAM");
        let at = each.need("at", each.size("at")?)?;
        let size = each.need("size", each.size("size")?)?;
        let late = each.flag("late")?.unwrap_or(false);
        if late && !regime.is_guest() {
            let text =
                "memory that is added later is a guest's: nobody else here keeps books of it";
            return Err(each.place_of("late").wrong(text));
        }
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
        all_late.extend(late.then_some(range));
    }
    ram.sort_by_key(|range| range.base());
    Ok((ram, all_late))
}
