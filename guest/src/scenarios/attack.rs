//! The attack: each device is pointed at a private page on purpose, to write it and to read it.
//! What becomes of the page is told, not judged: with an IOMMU it has to stay intact, and without
//! one it has to be overwritten, or the attack proves nothing.
// UNSAFETY: devices are given addresses that they must not have.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use coco_dma::addr::PhysRange;
use coco_dma::plan::Limits;
use virtio_drivers::device::blk::SECTOR_SIZE;
use virtio_drivers::device::blk::VirtIOBlk;
use virtio_drivers::device::rng::VirtIORng;

use super::io;
use super::row;
use crate::Failure;
use crate::devices::edu;
use crate::devices::edu::Edu;
use crate::devices::nvme;
use crate::devices::nvme::Nvme;
use crate::devices::shared_buffer::SharedBuffer;
use crate::devices::virtio::DeviceHal;
use crate::devices::virtio::LyingHal;
use crate::devices::virtio::Platformed;
use crate::devices::virtio::lie_about;
use crate::layer::Layer;
use crate::memory::PAGE;
use crate::memory::frames::SOURCE;
use crate::memory::private;
use crate::report::Row;
use crate::rt::start::Boot;

/// Where on a disk the stolen page is put: behind everything else.
pub const LOOT: usize = 2 * io::PART;

/// A private page full of the marker.
struct Victim(PhysRange);

impl Victim {
    fn new() -> Result<Self, Failure> {
        Ok(Self(SOURCE.take_from(0, PAGE, PAGE, u64::MAX).ok_or("no memory")?))
    }

    fn addr(&self) -> u64 {
        self.0.base().raw()
    }

    fn pointer(&self) -> NonNull<[u8]> {
        let start = NonNull::new(private(self.addr())).unwrap_or(NonNull::dangling());
        NonNull::slice_from_raw_parts(start, PAGE as usize)
    }

    /// The page as a driver's buffer.
    ///
    /// # Safety
    ///
    /// Nobody else uses the page meanwhile.
    unsafe fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the page is private, this value's, and initialised.
        unsafe { self.pointer().as_mut() }
    }

    /// What became of it, in words: volatile, since a device may have written behind our back.
    fn state(&self) -> &'static str {
        let marker = SOURCE.marker();
        let start = self.pointer().cast::<u8>();
        let intact = (0..PAGE as usize).zip(marker.iter().cycle()).all(|(at, wanted)| {
            // SAFETY: inside the page.
            let byte = unsafe { start.add(at) };
            // SAFETY: as above.
            unsafe { byte.read_volatile() == *wanted }
        });
        if intact { "intact" } else { "overwritten" }
    }
}

/// A device by name.
pub fn run(layer: &Layer, boot: &Boot, device: &str) -> Result<(), Failure> {
    match device {
        "blk" => blk(layer, boot),
        "rng" => rng(layer, boot),
        "nvme" => nvme(layer, boot),
        "edu" => edu(layer, boot),
        _ => Err("there is no such device".into()),
    }
}

/// What the device said to both: that it stole, and that it wrote.
fn told<E>(row: Row, steal: &Result<(), E>, write: &Result<(), E>, victim: &Victim) {
    let word = |said: &Result<(), E>| if said.is_ok() { "ok" } else { "error" };
    row.with("steal-said", word(steal))
        .with("write-said", word(write))
        .with("private", victim.state())
        .say();
}

fn blk(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let found = layer.find(io::BLK).ok_or("no virtio-blk")?;
    let adaptor = layer.adapt(layer.endpoint(boot, "blk", found)?)?;
    // SAFETY: the adaptor lives for ever; the driver is dropped before the guard.
    let bound = unsafe { DeviceHal::bind(adaptor) }?;
    let mut disk = VirtIOBlk::<LyingHal, _>::new(Platformed::new(found)?)?;
    let mut victim = Victim::new()?;
    lie_about(victim.pointer());
    // SAFETY: nobody else uses the page.
    let page = unsafe { victim.bytes() };
    let steal = disk.write_blocks(LOOT / SECTOR_SIZE, page);
    layer.collect_faults();
    let write = disk.read_blocks(0, page);
    disk.flush()?;
    drop(disk);
    told(row(layer, boot, adaptor.device()), &steal, &write, &victim);
    drop(bound);
    Ok(())
}

fn rng(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let found = layer.find(io::RNG).ok_or("no virtio-rng")?;
    let adaptor = layer.adapt(layer.endpoint(boot, "rng", found)?)?;
    // SAFETY: as in `blk`.
    let bound = unsafe { DeviceHal::bind(adaptor) }?;
    let mut rng = VirtIORng::<LyingHal, _>::new(Platformed::new(found)?)?;
    let mut victim = Victim::new()?;
    lie_about(victim.pointer());
    // SAFETY: nobody else uses the page.
    let write = rng.request_entropy(unsafe { victim.bytes() }).map(drop);
    drop(rng);
    // It has nothing to read from memory.
    told(row(layer, boot, adaptor.device()), &Ok(()), &write, &victim);
    drop(bound);
    Ok(())
}

fn nvme(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let found = layer.find_class(nvme::CLASS).ok_or("no nvme")?;
    let device = layer.bind(layer.endpoint(boot, "nvme", found)?, Limits::NONE)?;
    let mut nvme = Nvme::new(device, found)?;
    let victim = Victim::new()?;
    let block = LOOT as u64 / nvme::BLOCK;
    // SAFETY: none. This is the attack; the page holds nothing but the marker.
    let steal = unsafe { nvme.transfer(true, block, victim.addr(), PAGE as usize) };
    layer.collect_faults();
    // SAFETY: as above.
    let write = unsafe { nvme.transfer(false, 0, victim.addr(), PAGE as usize) };
    nvme.end()?;
    told(row(layer, boot, device), &steal, &write, &victim);
    Ok(())
}

fn edu(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let found = layer.find(edu::ID).ok_or("no edu")?;
    let device =
        layer.bind(layer.endpoint(boot, "edu", found)?, Limits::mask_bits(edu::MASK_BITS))?;
    let mut edu = Edu::new(device, found)?;
    let victim = Victim::new()?;
    edu.put(&io::pattern(7, edu::BUFFER))?;
    // SAFETY: none. This is the attack; the page holds nothing but the marker.
    let steal = unsafe { edu.transfer(false, victim.addr(), edu::BUFFER) };
    layer.collect_faults();
    // What it stole it shows in a shared buffer.
    let mut loot = SharedBuffer::new(layer, 0, PAGE)?;
    let shown = loot.lend(device, coco_dma::state::Direction::FromDevice, |addr| {
        // SAFETY: the map lives until this closure ends, and `transfer` waits.
        unsafe { edu.transfer(true, addr, edu::BUFFER) }
    })?;
    shown.0?;
    let stolen = loot.bytes().read_array::<16>(0)? == SOURCE.marker();
    edu.put(&io::pattern(7, edu::BUFFER))?;
    // SAFETY: as above.
    let write = unsafe { edu.transfer(true, victim.addr(), edu::BUFFER) };
    loot.end(layer)?;
    let row = row(layer, boot, device).with("stolen", stolen);
    told(row, &steal, &write, &victim);
    Ok(())
}
