//! A whole confidential machine in twenty lines: an SEV-SNP guest, a pool that the layer shares
//! with the host, a buffer for an untrusted disk, and what the host saw of it.
// UNSAFETY: the pool's region is promised to be the pool's alone.
#![expect(unsafe_code)]

use coco_dma::{Dma, Word, attrs::Attrs, device::Endpoint, ledger::*, plan::Limits, pool::Pool};
use coco_dma::{regime::PlatformName, state::*};
use coco_dma_sim::{Machine, SimDevice};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Machine::builder(PlatformName::Snp).ram(0x4000_0000, 4 << 20).build()?;
    let region = machine.take(64 << 10)?;
    let ram = coco_dma::addr::PhysRange::new(coco_dma::addr::PhysAddr::new(0x4000_0000), 4 << 20);
    let metadata: Vec<Word> = (0..Tracked::words(4 << 20, 4096)).map(|_| Word::new()).collect();
    let slots: Vec<Word> = (0..Pool::words(64 << 10)).map(|_| Word::new()).collect();

    let ranges = [Tracked::new(ram.ok_or("a range")?, 4096, Initial::Private, &metadata)?];
    // SAFETY: the region was taken from the machine for this pool.
    let pools = [unsafe { Pool::convertible(PoolLabel::GuestShared, region, &slots) }?];
    let dma = Dma::new(&machine, &pools).with_ledger(Ledger::new(&ranges)?);
    dma.grow(&pools[0])?; // page by page, as SNP does it: the host sees the region from now on
    let disk = dma.bind(Endpoint::new("disk"), Limits::NONE)?;

    let mapping = disk.map(b"hello, host".to_vec(), Direction::ToDevice, Attrs::NONE)?;
    let (addr, bounced) = (mapping.addr(), mapping.is_bounced());
    let seen = SimDevice::new(&machine, "disk", Trust::Untrusted).fetch(addr.raw(), mapping.len());
    println!(
        "bounced: {bounced}; at {addr} the device reads {:?}",
        String::from_utf8(seen.expect("shared"))?
    );
    println!("{}", dma.inspect());
    let buffer = mapping.unmap(0)?;
    println!("the driver has its buffer back: {:?}", String::from_utf8(buffer)?);
    Ok(())
}
