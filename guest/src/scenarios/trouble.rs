//! What goes wrong, and how it ends: as a typed error, and the guest goes on.
// UNSAFETY: a device is given an address and taken away, and memory is shared.
#![expect(unsafe_code)]

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::ptr::NonNull;

use coco_dma::attrs::Attrs;
use coco_dma::convert::ConvertErrorKind;
use coco_dma::plan::Limits;
use coco_dma::platform::PageSource;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::Visibility;
use virtio_drivers::device::blk::VirtIOBlk;

use super::io;
use super::row;
use crate::Failure;
use crate::devices::DeviceError;
use crate::devices::edu;
use crate::devices::edu::Edu;
use crate::devices::nvme;
use crate::devices::nvme::Nvme;
use crate::devices::virtio::DeviceHal;
use crate::devices::virtio::Platformed;
use crate::iommu::PASSTHROUGH;
use crate::iommu::Rights;
use crate::layer::GuestDevice;
use crate::layer::Layer;
use crate::memory::PAGE;
use crate::memory::boot_shared;
use crate::memory::frames::SOURCE;
use crate::memory::paging::PAGING;
use crate::pci;
use crate::platform::GUEST;
use crate::rt::start::Boot;
use crate::say;

/// Bytes of each map that fills the pool.
const FILLER: usize = 16 << 10;
/// The sector at which the host's disk fails.
const BAD: usize = 1500;

/// Fills the pool with maps until one is refused, has `tried` asked for another, ends the maps.
fn fill(device: &GuestDevice, tried: impl FnOnce()) -> Result<(usize, &'static str), Failure> {
    let mut held = Vec::new();
    let reason = loop {
        let buffer: Box<[u8]> = io::marked(FILLER).into_boxed_slice();
        match device.map(buffer, Direction::FromDevice, Attrs::NONE) {
            Ok(mapping) => held.push(mapping),
            Err(failed) => break failed.error().reason.slug(),
        }
    };
    tried();
    let count = held.len();
    for mapping in held {
        // No device was given the address.
        mapping.unmap(0)?;
    }
    Ok((count, reason))
}

/// The pool is full.
pub fn exhaust(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let (mut asked, mut then) = (None, "error");
    let (device, (maps, reason));
    if boot.option("device") == Some("nvme") {
        let found = layer.find_class(nvme::CLASS).ok_or("no nvme")?;
        device = layer.bind(layer.endpoint(boot, "nvme", found)?, Limits::NONE)?;
        let mut nvme = Nvme::new(device, found)?;
        let mut block = io::marked(io::CHUNK);
        (maps, reason) =
            fill(device, || asked = nvme.read(0, &mut block).err().map(|e| format!("{e}")))?;
        if nvme.read(0, &mut block).is_ok() {
            then = "ok";
        }
        nvme.end()?;
    } else {
        let found = layer.find(io::BLK).ok_or("no virtio-blk")?;
        let adaptor = layer.adapt(layer.endpoint(boot, "blk", found)?)?;
        device = adaptor.device();
        // SAFETY: the adaptor lives for ever; the driver is dropped before the guard.
        let bound = unsafe { DeviceHal::bind(adaptor) }?;
        let mut disk = VirtIOBlk::<DeviceHal, _>::new(Platformed::new(found)?)?;
        let mut block = io::marked(io::CHUNK);
        // A `Hal` cannot refuse, so a driver above it asks before it submits.
        let buffer = NonNull::from(&mut block[..]);
        (maps, reason) =
            fill(device, || asked = adaptor.capacity_for(&[buffer]).err().map(|e| format!("{e}")))?;
        adaptor.capacity_for(&[buffer]).map_err(|refuse| refuse.text())?;
        if disk.read_blocks(0, &mut block).is_ok() {
            then = "ok";
        }
        drop(disk);
        drop(bound);
    }
    say!("typed: {}", asked.as_deref().unwrap_or("nothing was refused"));
    let row = row(layer, boot, device).with("maps", maps).with("reason", reason);
    row.with("refused-io", asked.is_some()).with("then", then).say();
    Ok(())
}

/// The disk fails at one sector, and not at others.
pub fn disk_error(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let mut sector = io::marked(512);
    let (device, bad, good);
    if boot.option("device") == Some("nvme") {
        let found = layer.find_class(nvme::CLASS).ok_or("no nvme")?;
        device = layer.bind(layer.endpoint(boot, "nvme", found)?, Limits::NONE)?;
        let mut nvme = Nvme::new(device, found)?;
        bad = nvme.read(BAD as u64, &mut sector).map_err(|error| format!("{error}"));
        good = nvme.read(0, &mut sector).map_err(|error| format!("{error}"));
        nvme.end()?;
    } else {
        let found = layer.find(io::BLK).ok_or("no virtio-blk")?;
        let adaptor = layer.adapt(layer.endpoint(boot, "blk", found)?)?;
        device = adaptor.device();
        // SAFETY: as in `exhaust`.
        let bound = unsafe { DeviceHal::bind(adaptor) }?;
        let mut disk = VirtIOBlk::<DeviceHal, _>::new(Platformed::new(found)?)?;
        bad = disk.read_blocks(BAD, &mut sector).map_err(|error| format!("{error}"));
        good = disk.read_blocks(0, &mut sector).map_err(|error| format!("{error}"));
        drop(disk);
        drop(bound);
    }
    say!("typed: {bad:?}");
    let word = |said: &Result<(), _>| if said.is_ok() { "ok" } else { "error" };
    row(layer, boot, device).with("bad", word(&bad)).with("then", word(&good)).say();
    Ok(())
}

/// A disk is unplugged while it has a request.
pub fn unplug(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let found = layer.find_class(nvme::CLASS).ok_or("no nvme")?;
    let port = pci::Port::above(found.at).ok_or("the disk is in no port")?;
    let device = layer.bind(layer.endpoint(boot, "nvme", found)?, Limits::NONE)?;
    let mut nvme = Nvme::new(device, found)?;
    let mut buffer = io::marked(io::CHUNK);
    nvme.read(0, &mut buffer)?;
    // The host lets one request a second through, so that this one stays out.
    let second = io::marked(io::CHUNK).into_boxed_slice();
    let mapping =
        device.map(second, Direction::FromDevice, Attrs::NONE).map_err(|failed| failed.error())?;
    // SAFETY: the map is finished below, after the device is gone.
    let pending = unsafe { nvme.submit(false, 0, mapping.addr().raw(), mapping.len()) }?;
    say!("ready-to-unplug");
    port.wait_for_button()?;
    port.power_off();
    // QEMU lets a device end what it has; a device of metal may as well not.
    let first = nvme.wait(&pending);
    // SAFETY: as above. The driver does not know yet that nobody is there.
    let pending = unsafe { nvme.submit(false, 0, mapping.addr().raw(), mapping.len()) }?;
    let waited = nvme.wait(&pending);
    for said in [first, waited] {
        say!("typed: {}", said.map_or_else(|error| format!("{error}"), |()| "it answered".into()));
    }
    // SAFETY: a device without power does no DMA, and nobody else maps for it.
    let freed = unsafe { device.revoke() };
    let buffer = mapping.unmap(io::CHUNK)?;
    let untouched = buffer == io::marked(io::CHUNK).into_boxed_slice();
    let refused = match nvme.read(0, &mut io::marked(512)) {
        Err(DeviceError::Map(error)) => error.reason.slug(),
        Err(_) => "device-error",
        Ok(()) => "ok",
    };
    nvme.end()?;
    let echo = edu_goes_on(layer, boot)?;
    row(layer, boot, device)
        .with("waited", if waited == Err(DeviceError::Gone) { "gone" } else { "other" })
        .with("freed", freed)
        .with("buffer", if untouched { "untouched" } else { "changed" })
        .with("refused-io", refused)
        .with("then", echo)
        .say();
    Ok(())
}

/// Another device still works.
fn edu_goes_on(layer: &Layer, boot: &Boot) -> Result<&'static str, Failure> {
    let found = layer.find(edu::ID).ok_or("no edu")?;
    let device =
        layer.bind(layer.endpoint(boot, "edu", found)?, Limits::mask_bits(edu::MASK_BITS))?;
    let mut edu = Edu::new(device, found)?;
    let sent = io::pattern(11, edu::BUFFER);
    edu.put(&sent)?;
    let mut came = io::marked(edu::BUFFER);
    edu.get(&mut came)?;
    Ok(if came == sent { "ok" } else { "other-bytes" })
}

/// The IOMMU refuses the second page of a conversion: Intel's has no room for a table, virtio's
/// finds the page occupied.
pub fn refuse(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    // The last page of one table, and the first of the next, which is not there yet.
    let border = 0x1c0_0000;
    let run = SOURCE.take_from(border - PAGE, 2 * PAGE, PAGE, border + PAGE).ok_or("taken")?;
    // SAFETY: the page is ours; the table below the border is made by it.
    let first = run.slice(0, PAGE).ok_or("a page")?;
    // SAFETY: the page is ours, and nothing points into it.
    unsafe { layer.dma.share(first) }?;
    // SAFETY: as above; no device was given it.
    unsafe { layer.dma.reclaim(first) }?;
    boot_shared::limit(0);
    let occupied = boot.option("mode") == Some("occupied");
    if occupied {
        boot_shared::unlimited();
        GUEST.iommu.borrow_mut().map(PASSTHROUGH, border, border, Rights::ALL)?;
    }
    // SAFETY: both pages are ours, and nothing points into them.
    let failed = match unsafe { layer.dma.share(run) } {
        Ok(()) => return Err("the conversion went through".into()),
        Err(failed) => failed,
    };
    say!("typed: {failed}");
    let private = [border - PAGE, border].map(|page| PAGING.state(page) == Visibility::Private);
    boot_shared::unlimited();
    if occupied {
        GUEST.iommu.borrow_mut().unmap(PASSTHROUGH, border, PAGE)?;
    }
    // SAFETY: as above.
    unsafe { layer.dma.share(run) }?;
    // SAFETY: no device was given them.
    unsafe { layer.dma.reclaim(run) }?;
    // SAFETY: private again, and nobody's.
    unsafe { SOURCE.free(run, Context::Blocking) };
    let found = layer.find(edu::ID).ok_or("no edu")?;
    let device = layer.bind(layer.endpoint(boot, "other", found)?, Limits::NONE)?;
    let then = edu_goes_on(layer, boot)?;
    let ConvertErrorKind::Platform(error) = failed.why else {
        return Err("not the platform".into());
    };
    row(layer, boot, device)
        .with("code", format!("{:#x}", error.code))
        .with("done", error.done)
        .with("unchanged", failed.unchanged())
        .with("quarantined", failed.quarantined)
        .with("private", private == [true; 2])
        .with("then", then)
        .say();
    Ok(())
}
