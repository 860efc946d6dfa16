//! Each device once through the pool: blocks that the host wrote are read and hashed, and a
//! pattern is written that the host looks for. All buffers are private.
// UNSAFETY: a type of `Hal` is bound.
#![expect(unsafe_code)]

use alloc::vec;
use alloc::vec::Vec;

use coco_dma::plan::Limits;
use sha2::Digest;
use sha2::Sha256;
use virtio_drivers::device::blk::SECTOR_SIZE;
use virtio_drivers::device::blk::VirtIOBlk;
use virtio_drivers::device::rng::VirtIORng;

use super::attack;
use super::direct;
use super::row;
use crate::Failure;
use crate::devices::edu;
use crate::devices::edu::Edu;
use crate::devices::nvme;
use crate::devices::nvme::Nvme;
use crate::devices::virtio::DeviceHal;
use crate::devices::virtio::Platformed;
use crate::layer::Layer;
use crate::memory::frames::SOURCE;
use crate::report::hex;
use crate::rt::start::Boot;

/// virtio's devices.
pub const BLK: (u16, u16) = (0x1af4, 0x1042);
/// virtio's source of randomness.
pub const RNG: (u16, u16) = (0x1af4, 0x1044);

/// Bytes that are read from the start of a disk, and then written behind them.
pub const PART: usize = 256 << 10;
/// Bytes of one request.
pub const CHUNK: usize = 64 << 10;

/// What was asked for.
pub fn run(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let device = boot.option("device").unwrap_or("blk");
    match (device, boot.option("mode").unwrap_or("bounced")) {
        ("blk", "bounced") => blk(layer, boot),
        ("rng", "bounced") => rng(layer, boot),
        ("nvme", "bounced" | "private") => nvme(layer, boot),
        ("edu", "bounced") => edu(layer, boot),
        (device, "direct") => direct::run(layer, boot, device),
        (device, "attack") => attack::run(layer, boot, device),
        (device, mode) => Err(alloc::format!("there is no mode `{mode}` of `{device}`").into()),
    }
}

/// Every device once, one after the other.
pub fn every(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    blk(layer, boot)?;
    rng(layer, boot)?;
    nvme(layer, boot)?;
    edu(layer, boot)
}

/// A pattern that the host can make as well: a multiply-and-shift generator.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = vec![0; len];
    for eight in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        eight.copy_from_slice(&state.to_le_bytes()[..eight.len()]);
    }
    bytes
}

/// A private buffer full of the marker: what must not leave.
pub fn marked(len: usize) -> Vec<u8> {
    SOURCE.marker().into_iter().cycle().take(len).collect()
}

/// The hash of bytes, as text.
pub fn sha256(bytes: &[u8]) -> alloc::string::String {
    hex(&Sha256::digest(bytes))
}

/// Reads the first part of a disk and writes the pattern behind it.
pub fn both_ways(
    boot: &Boot,
    mut read: impl FnMut(usize, &mut [u8]) -> Result<(), Failure>,
    mut write: impl FnMut(usize, &[u8]) -> Result<(), Failure>,
) -> Result<alloc::string::String, Failure> {
    let mut all = Vec::new();
    for at in (0..PART).step_by(CHUNK) {
        let mut chunk = marked(CHUNK);
        read(at, &mut chunk)?;
        all.extend_from_slice(&chunk);
    }
    let written = pattern(boot.number("seed").unwrap_or(1), PART);
    for (number, chunk) in written.chunks(CHUNK).enumerate() {
        write(PART + number * CHUNK, chunk)?;
    }
    Ok(sha256(&all))
}

fn blk(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let found = layer.find(BLK).ok_or("no virtio-blk")?;
    let adaptor = layer.adapt(layer.endpoint(boot, "blk", found)?)?;
    // SAFETY: the adaptor lives for ever; the driver is dropped before the guard.
    let bound = unsafe { DeviceHal::bind(adaptor) }?;
    let disk = VirtIOBlk::<DeviceHal, _>::new(Platformed::new(found)?)?;
    let disk = core::cell::RefCell::new(disk);
    let read = both_ways(
        boot,
        |at, to| Ok(disk.borrow_mut().read_blocks(at / SECTOR_SIZE, to)?),
        |at, from| Ok(disk.borrow_mut().write_blocks(at / SECTOR_SIZE, from)?),
    )?;
    disk.borrow_mut().flush()?;
    drop(disk);
    row(layer, boot, adaptor.device()).with("bytes", 2 * PART).with("read", read).say();
    drop(bound);
    Ok(())
}

fn rng(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let found = layer.find(RNG).ok_or("no virtio-rng")?;
    let adaptor = layer.adapt(layer.endpoint(boot, "rng", found)?)?;
    // SAFETY: as in `blk`.
    let bound = unsafe { DeviceHal::bind(adaptor) }?;
    let mut rng = VirtIORng::<DeviceHal, _>::new(Platformed::new(found)?)?;
    let mut all = Vec::new();
    while all.len() < CHUNK {
        let mut chunk = marked(4096.min(CHUNK - all.len()));
        let got = rng.request_entropy(&mut chunk)?.min(chunk.len());
        all.extend_from_slice(&chunk[..got]);
    }
    drop(rng);
    let read = sha256(&all);
    row(layer, boot, adaptor.device()).with("bytes", all.len()).with("read", read).say();
    drop(bound);
    Ok(())
}

fn nvme(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let found = layer.find_class(nvme::CLASS).ok_or("no nvme")?;
    let device = layer.bind(layer.endpoint(boot, "nvme", found)?, Limits::NONE)?;
    let mut nvme = Nvme::new(device, found)?;
    let serial = nvme.identify()?[4..24].trim_ascii().to_vec();
    let disk = core::cell::RefCell::new(nvme);
    let read = both_ways(
        boot,
        |at, to| Ok(disk.borrow_mut().read(at as u64 / nvme::BLOCK, to)?),
        |at, from| Ok(disk.borrow_mut().write(at as u64 / nvme::BLOCK, from)?),
    )?;
    disk.into_inner().end()?;
    let row = row(layer, boot, device).with("bytes", 2 * PART).with("read", read);
    row.with("serial", core::str::from_utf8(&serial)?).say();
    Ok(())
}

fn edu(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let found = layer.find(edu::ID).ok_or("no edu")?;
    let device =
        layer.bind(layer.endpoint(boot, "edu", found)?, Limits::mask_bits(edu::MASK_BITS))?;
    let mut edu = Edu::new(device, found)?;
    let sent = pattern(boot.number("seed").unwrap_or(1), edu::BUFFER);
    edu.put(&sent)?;
    let mut came = marked(edu::BUFFER);
    edu.get(&mut came)?;
    if came != sent {
        return Err("edu gave other bytes back".into());
    }
    row(layer, boot, device).with("bytes", 2 * edu::BUFFER).with("read", sha256(&came)).say();
    Ok(())
}
