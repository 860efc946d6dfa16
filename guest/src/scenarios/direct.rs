//! Each device once in place: data lies in memory that was shared through the layer, and no byte
//! of it is copied.
// UNSAFETY: devices are given addresses of shared memory, and drivers slices of it.
#![expect(unsafe_code)]

use coco_dma::plan::Limits;
use coco_dma::state::Direction;
use virtio_drivers::device::blk::SECTOR_SIZE;
use virtio_drivers::device::blk::VirtIOBlk;
use virtio_drivers::device::rng::VirtIORng;

use super::io;
use super::io::CHUNK;
use super::io::PART;
use super::row;
use crate::Failure;
use crate::devices::edu;
use crate::devices::edu::Edu;
use crate::devices::nvme;
use crate::devices::nvme::Nvme;
use crate::devices::shared_buffer::SharedBuffer;
use crate::devices::virtio::DeviceHal;
use crate::devices::virtio::Platformed;
use crate::layer::Layer;
use crate::rt::start::Boot;

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

/// Shared memory as a slice, for drivers that take nothing else. Whoever writes a driver anew
/// takes `SharedBytes` and this is not needed.
///
/// # Safety
///
/// Nobody but the driver uses the memory, and the driver does not look at it while its device has
/// it.
unsafe fn as_slice(buffer: &mut SharedBuffer) -> &mut [u8] {
    // SAFETY: the memory is mapped, initialised and borrowed. The host could write at any time;
    // here it is QEMU, which does so when its device does.
    unsafe { buffer.pointer().as_mut() }
}

fn blk(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let found = layer.find(io::BLK).ok_or("no virtio-blk")?;
    let adaptor = layer.adapt(layer.endpoint(boot, "blk", found)?)?;
    // SAFETY: the adaptor lives for ever; the driver is dropped before the guard.
    let bound = unsafe { DeviceHal::bind(adaptor) }?;
    let mut disk = VirtIOBlk::<DeviceHal, _>::new(Platformed::new(found)?)?;
    let mut buffer = SharedBuffer::new(layer, 0, PART as u64)?;
    for (number, at) in (0..PART).step_by(CHUNK).enumerate() {
        // SAFETY: the driver waits for its device.
        let data = unsafe { as_slice(&mut buffer) };
        disk.read_blocks(number * CHUNK / SECTOR_SIZE, &mut data[at..at + CHUNK])?;
    }
    let mut copy = io::marked(PART);
    buffer.bytes().read(0, &mut copy)?;
    let read = io::sha256(&copy);
    buffer.bytes().write(0, &io::pattern(boot.number("seed").unwrap_or(1), PART))?;
    for at in (0..PART).step_by(CHUNK) {
        // SAFETY: as above.
        let data = unsafe { as_slice(&mut buffer) };
        disk.write_blocks((PART + at) / SECTOR_SIZE, &data[at..at + CHUNK])?;
    }
    disk.flush()?;
    drop(disk);
    buffer.end(layer)?;
    row(layer, boot, adaptor.device()).with("bytes", 2 * PART).with("read", read).say();
    drop(bound);
    Ok(())
}

fn rng(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let found = layer.find(io::RNG).ok_or("no virtio-rng")?;
    let adaptor = layer.adapt(layer.endpoint(boot, "rng", found)?)?;
    // SAFETY: as in `blk`.
    let bound = unsafe { DeviceHal::bind(adaptor) }?;
    let mut rng = VirtIORng::<DeviceHal, _>::new(Platformed::new(found)?)?;
    let mut buffer = SharedBuffer::new(layer, 0, CHUNK as u64)?;
    let mut at = 0;
    while at < CHUNK {
        let end = (at + 4096).min(CHUNK);
        // SAFETY: as in `blk`.
        let data = unsafe { as_slice(&mut buffer) };
        at += rng.request_entropy(&mut data[at..end])?.min(end - at);
    }
    drop(rng);
    let mut copy = io::marked(CHUNK);
    buffer.bytes().read(0, &mut copy)?;
    buffer.end(layer)?;
    let read = io::sha256(&copy);
    row(layer, boot, adaptor.device()).with("bytes", CHUNK).with("read", read).say();
    drop(bound);
    Ok(())
}

fn nvme(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let found = layer.find_class(nvme::CLASS).ok_or("no nvme")?;
    let device = layer.bind(layer.endpoint(boot, "nvme", found)?, Limits::NONE)?;
    let mut nvme = Nvme::new(device, found)?;
    let mut buffer = SharedBuffer::new(layer, 0, CHUNK as u64)?;
    let (mut all, written) =
        (alloc::vec::Vec::new(), io::pattern(boot.number("seed").unwrap_or(1), PART));
    for at in (0..PART).step_by(CHUNK) {
        let block = at as u64 / nvme::BLOCK;
        let (done, bounced) = buffer.lend(device, Direction::FromDevice, |addr| {
            // SAFETY: the map lives until this closure ends, and `transfer` waits.
            unsafe { nvme.transfer(false, block, addr, CHUNK) }
        })?;
        done?;
        let mut copy = io::marked(CHUNK);
        buffer.bytes().read(0, &mut copy)?;
        all.extend_from_slice(&copy);
        buffer.bytes().write(0, &written[at..at + CHUNK])?;
        let block = (PART + at) as u64 / nvme::BLOCK;
        let (done, again) = buffer.lend(device, Direction::ToDevice, |addr| {
            // SAFETY: as above.
            unsafe { nvme.transfer(true, block, addr, CHUNK) }
        })?;
        done?;
        if bounced || again {
            return Err("a shared buffer was bounced".into());
        }
    }
    buffer.end(layer)?;
    nvme.end()?;
    row(layer, boot, device).with("bytes", 2 * PART).with("read", io::sha256(&all)).say();
    Ok(())
}

fn edu(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let found = layer.find(edu::ID).ok_or("no edu")?;
    let device =
        layer.bind(layer.endpoint(boot, "edu", found)?, Limits::mask_bits(edu::MASK_BITS))?;
    let mut edu = Edu::new(device, found)?;
    // Coherent memory, which the layer places within the mask.
    let mut memory = device.alloc(edu::BUFFER, coco_dma::state::Context::Blocking)?.expose();
    let sent = io::pattern(boot.number("seed").unwrap_or(1), edu::BUFFER);
    memory.bytes().write(0, &sent)?;
    // SAFETY: the memory is the device's until it is freed, and `transfer` waits.
    unsafe { edu.transfer(false, memory.addr().raw(), edu::BUFFER) }?;
    memory.bytes().zero(0, edu::BUFFER)?;
    // SAFETY: as above.
    unsafe { edu.transfer(true, memory.addr().raw(), edu::BUFFER) }?;
    let mut came = io::marked(edu::BUFFER);
    memory.bytes().read(0, &mut came)?;
    memory.free(coco_dma::state::Context::Blocking).map_err(|error| error.reason)?;
    if came != sent {
        return Err("edu gave other bytes back".into());
    }
    row(layer, boot, device).with("bytes", 2 * edu::BUFFER).with("read", io::sha256(&came)).say();
    Ok(())
}
