//! What the guest's own page tables hold: a pointer of the wrong state faults; an address that is
//! too wide for a device is bounced; and nothing private lies where the host can see.
// UNSAFETY: pointers of the wrong state, and a device that is misled.
#![expect(unsafe_code)]

use coco_dma::plan::Limits;
use coco_dma::state::Direction;
use coco_dma::state::Visibility;

use super::io;
use super::row;
use crate::Failure;
use crate::devices::edu;
use crate::devices::edu::Edu;
use crate::devices::shared_buffer::SharedBuffer;
use crate::layer::Layer;
use crate::memory::PAGE;
use crate::memory::frames::SOURCE;
use crate::memory::paging::PAGING;
use crate::memory::private;
use crate::memory::shared;
use crate::report::LISTENER;
use crate::rt::serial::wait_for_host;
use crate::rt::start::Boot;
use crate::say;

/// Touches a page through the mapping of the state that it is not in. The exception ends the
/// guest; if nothing does, that is told.
pub fn touch(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    let pointer = if boot.option("mode") == Some("shared-alias") {
        let page = SOURCE.take_from(0, PAGE, PAGE, u64::MAX).ok_or("no memory")?;
        shared(page.base().raw())
    } else {
        let buffer = SharedBuffer::new(layer, 0, PAGE)?;
        private(buffer.run().base().raw())
    };
    say!("touching {:#x}", pointer.addr());
    // SAFETY: none. This has to fault.
    let byte = unsafe { pointer.read_volatile() };
    Err(alloc::format!("read {byte:#x} through a mapping that should not be there").into())
}

/// A buffer that lies higher than edu's 28 bits.
pub fn wide(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    /// Shared memory past 28 bits, and what edu makes of its address.
    const HIGH: u64 = 0x11c0_0000;
    const CUT_OFF: u64 = HIGH & ((1 << edu::MASK_BITS) - 1);
    let found = layer.find(edu::ID).ok_or("no edu")?;
    let device =
        layer.bind(layer.endpoint(boot, "edu", found)?, Limits::mask_bits(edu::MASK_BITS))?;
    let mut edu = Edu::new(device, found)?;
    let mut buffer = SharedBuffer::new(layer, HIGH, PAGE)?;
    let mut bystander = SharedBuffer::new(layer, CUT_OFF, PAGE)?;
    if (buffer.run().base().raw(), bystander.run().base().raw()) != (HIGH, CUT_OFF) {
        return Err("the frames are taken".into());
    }
    let sent = io::pattern(boot.number("seed").unwrap_or(1), edu::BUFFER);
    buffer.bytes().write(0, &sent)?;
    // SAFETY: the map lives until the closure ends, and `transfer` waits.
    let put = |addr| unsafe { edu.transfer(false, addr, edu::BUFFER) };
    let (put, bounced) = buffer.lend(device, Direction::ToDevice, put)?;
    put?;
    buffer.bytes().zero(0, edu::BUFFER)?;
    // SAFETY: as above.
    let get = |addr| unsafe { edu.transfer(true, addr, edu::BUFFER) };
    let (get, again) = buffer.lend(device, Direction::FromDevice, get)?;
    get?;
    let mut came = io::marked(edu::BUFFER);
    buffer.bytes().read(0, &mut came)?;
    let hit = |bystander: &mut SharedBuffer| -> Result<bool, Failure> {
        let mut there = io::marked(edu::BUFFER);
        bystander.bytes().read(0, &mut there)?;
        Ok(there == sent)
    };
    let (spared, why) = (!hit(&mut bystander)?, LISTENER.bounced.get());
    // The control: the same address without the layer.
    // SAFETY: none. The device is known to hit the bystander, which is shared and holds nothing.
    let misled = unsafe { edu.transfer(true, HIGH, edu::BUFFER) };
    let cut_off = hit(&mut bystander)?;
    buffer.end(layer)?;
    bystander.end(layer)?;
    row(layer, boot, device)
        .with("echo", came == sent)
        .with("through-pool", bounced && again)
        .with("reason", why.map_or("none", |why| why.slug()))
        .with("spared", spared)
        .with("misled-said", if misled.is_ok() { "ok" } else { "error" })
        .with("misled-hit", cut_off)
        .say();
    Ok(())
}

/// Uses every device, then waits while the host looks at memory.
pub fn leak(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    io::every(layer, boot)?;
    let shared = |page: &u64| PAGING.state(*page) == Visibility::Shared;
    let mut pages = (PAGE..PAGING.end()).step_by(PAGE as usize).filter(shared).peekable();
    while let Some(first) = pages.next() {
        let mut end = first + PAGE;
        while pages.next_if_eq(&end).is_some() {
            end += PAGE;
        }
        say!("shared {first} {}", end - first);
    }
    say!("memory {}", PAGING.end());
    say!("ready-to-dump");
    wait_for_host();
    Ok(())
}
