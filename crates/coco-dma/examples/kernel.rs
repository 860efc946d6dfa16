//! What a kernel author writes: one trait, storage, a line for each device. On a bare machine the
//! layer costs a comparison and an addition; as a guest of TDX the same drivers work unchanged,
//! because one type was exchanged.
// UNSAFETY: the machine answers for its memory, and raw maps for their buffers.
#![expect(unsafe_code)]

use std::ptr::NonNull;

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::attrs::Attrs;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::platform::Platform;
use coco_dma::pool::Pool;
use coco_dma::regime::{Parameters, PlatformName, Regime};
use coco_dma::state::{Direction, PoolLabel};
use coco_dma::{Dma, Word};

/// A machine whose memory lies where its pointers say, as in a kernel with an identity map.
struct Kernel(Regime);

// SAFETY: 1. the regime is a constant. 2. Pointers are physical addresses here. 3. Nothing
// converts. 4. Every run is mapped at its own address.
unsafe impl Platform for Kernel {
    fn regime(&self) -> Regime {
        self.0
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        let base = PhysAddr::new(bytes.cast::<u8>().addr().get() as u64);
        PhysRange::new(base, bytes.len() as u64)
    }

    // A kernel of guests converts, too (`convert`: MapGPA on TDX, page-state change on SNP, RSI on
    // CCA), and maps memory with the protection of its state (`map_cpu`).
}

/// A driver: it does not know what machine it is on.
fn send(dma: &Dma<'_, Kernel>, packet: &mut [u8]) -> Result<(), Box<dyn std::error::Error>> {
    let nic = dma.bind(Endpoint::new("nic"), Limits::mask_bits(64))?;
    nic.with_mapped(packet, Direction::ToDevice, Attrs::NONE, |lent| {
        println!("the device is given {} (bounced: {})", lent.addr(), lent.is_bounced());
        // Here the driver writes the address into a descriptor, kicks and waits.
    })?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut packet = *b"a packet of private memory";
    let bare = Kernel(Regime::Open);
    send(&Dma::new(&bare, &[]), &mut packet)?;

    // The same kernel in a TDX guest. Its firmware shared 64 KiB before it started.
    let tdx = Kernel(PlatformName::Tdx.regime(&Parameters::default())?);
    let memory = Box::leak(vec![0u8; 64 << 10].into_boxed_slice());
    let slots: Vec<Word> = (0..Pool::words(64 << 10)).map(|_| Word::new()).collect();
    let range = tdx.locate(NonNull::from(&mut *memory)).ok_or("a range")?;
    let view = NonNull::from(memory).cast();
    // SAFETY: leaked memory that nothing else uses; its label is what this example plays.
    let pools = [unsafe { Pool::adopt(PoolLabel::GuestShared, range, view, &slots) }?];
    send(&Dma::new(&tdx, &pools), &mut packet)
}
