//! Devices of a case.

use coco_dma::addr::{
    AddressLimit, AlignMask, Alignment, Boundary, BusRange, CacheLine, PhysAddr, PhysRange,
};
use coco_dma::device::MAX_POOLS;
use coco_dma::plan::Limits;
use coco_dma::regime::Regime;
use coco_dma::state::{Attachment, Trust};

use super::machine::MachineSpec;
use super::things::{PoolSpec, named, node};
use super::vocabulary::{IOMMU, TRUST};
use crate::read::{Place, Reader, Table, Wrong, unknown};

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
    pub(crate) node: Option<u16>,
    /// Its own pools, by number.
    pub(crate) pools: Vec<usize>,
    pub(crate) quota: Option<usize>,
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) bound: bool,
}

/// The devices. Marks the pools that they name as theirs.
pub(super) fn read(
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
    for device in devices.iter().filter(|device| device.bound && !machine.plan_only) {
        let count = device.pools.len() + shared;
        if count > MAX_POOLS {
            return Err(device.place.wrong(format!(
                "the device '{}' would have {count} pools, its own and the machine's; the most \
                 are {}",
                device.name, MAX_POOLS
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
        bits => return wrong("mask", &format!("a mask has 1 to 64 bits, not {bits}")),
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
    let cache_line = match reader.size("cache-line")?.map(CacheLine::new) {
        None => CacheLine::USUAL,
        Some(Some(line)) => line,
        Some(None) => return wrong("cache-line", "a cache line is a power of two"),
    };
    let align = |key| match reader.size(key)?.map(Alignment::new) {
        None => Ok(Alignment::NONE),
        Some(Some(align)) => Ok(align),
        Some(None) => Err(reader.place_of(key).wrong("an alignment is a power of two")),
    };
    let limits = Limits {
        mask: AddressLimit::bits(mask),
        segment: reader.size("segment")?,
        boundary,
        max_segments: (reader.size("max-segments")?)
            .map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
        align: align("align")?,
        len_align: align("len-align")?,
        min_align,
        cache_line,
    };
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
    let quota_bytes = reader.size("quota-bytes")?;
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
        node: node(reader)?,
        attachment: reader.word("iommu", &IOMMU)?.unwrap_or(iommu),
        pools: own,
        quota,
        quota_bytes,
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
