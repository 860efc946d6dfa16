//! Devices that share a pool, under loom: who has no quota left and waits for some misses nothing,
//! and is in nobody's way.
// UNSAFETY: raw maps, of memory that no device touches.
#![expect(unsafe_code)]

use std::boxed::Box;
use std::ptr::NonNull;
use std::vec::Vec;

use super::RawMapping;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::addr::SLOT;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::device::Endpoint;
use crate::dma::Dma;
use crate::plan::Limits;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::reason::Refuse;
use crate::regime::Parameters;
use crate::regime::PlatformName;
use crate::regime::Regime;
use crate::state::Direction;
use crate::state::PoolLabel;
use crate::waiters::CapacityListener;
use crate::waiters::Watch;
use crate::word::Word;
use crate::word::race::outcomes;
use crate::word::race::race;

/// A machine where every buffer is bounced.
struct Toy;

// SAFETY: it says where nothing is, and converts nothing.
unsafe impl Platform for Toy {
    fn regime(&self) -> Regime {
        PlatformName::Tdx.regime(&Parameters::default()).unwrap()
    }

    fn locate(&self, _: NonNull<[u8]>) -> Option<PhysRange> {
        None
    }
}

/// How often it was told. Not loom's: it is read when all is over.
#[derive(Default)]
struct Told(std::sync::atomic::AtomicUsize);

impl CapacityListener for Told {
    fn capacity(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

type Bound = &'static Device<'static, Toy>;

/// A pool of two slots for two devices, the first of which may have one and has it; and who is told
/// when it may have one again.
fn two_devices() -> ([Bound; 2], RawMapping, &'static Told) {
    let len = 2 * SLOT;
    let memory = Box::leak(Box::new([0u64; 512]));
    let words: Vec<_> = (0..Pool::words(len)).map(|_| Word::new()).collect();
    let range = PhysRange::new(PhysAddr::new(0x10_0000), len).unwrap();
    let (label, view) = (PoolLabel::GuestShared, NonNull::from(memory).cast());
    // SAFETY: leaked memory for the pool alone.
    let pool = unsafe { Pool::adopt(label, range, view, words.leak()) }.unwrap();
    let pools = Box::leak(Box::new([pool]));
    let dma: &'static Dma<'static, Toy> = Box::leak(Box::new(Dma::new(&Toy, pools)));
    let told: &'static Told = Box::leak(Box::default());
    let bind =
        |endpoint| -> Bound { Box::leak(Box::new(dma.bind(endpoint, Limits::NONE).unwrap())) };
    let first = bind(Endpoint::new("first").quota(1).listener(told));
    let mapping = map(first).unwrap();
    ([first, bind(Endpoint::new("second"))], mapping, told)
}

fn map(device: Bound) -> Result<RawMapping, Refuse> {
    let bytes = NonNull::from(Box::leak(Box::new([0u8; 8])));
    // SAFETY: leaked memory that nobody touches.
    let mapped = unsafe { device.map_raw(bytes, Direction::ToDevice, Attrs::NONE) };
    mapped.map_err(|error| error.reason)
}

fn unmap(device: Bound, mapping: RawMapping) {
    // SAFETY: no device touches it.
    unsafe { device.unmap_raw(mapping, 0) }.unwrap();
}

/// Waits as it is to be done: whether it sleeps in the end.
fn sleeps(device: Bound, why: Refuse) -> bool {
    if map(device).is_ok() {
        return false;
    }
    assert_eq!(device.watch_capacity(why), Watch::Set);
    match map(device) {
        Ok(_) => false,
        Err(reason) => reason == why,
    }
}

#[test]
fn loom_waiting_misses_no_quota() {
    let met = outcomes(|swap| {
        let ([first, _], mapping, told) = two_devices();
        let end = move || unmap(first, mapping);
        let ((), asleep) = race(swap, end, move || sleeps(first, Refuse::Quota));
        let told = told.0.load(std::sync::atomic::Ordering::Relaxed);
        assert!(told > 0 || !asleep, "asleep, and never told");
        assert_eq!(map(first).is_ok(), asleep);
        (asleep, told)
    });
    assert_eq!(met, [(false, 0), (false, 1), (true, 1)]);
}

/// Nor does it wait for a device that is over.
#[test]
fn loom_waiting_ends_with_the_device() {
    let met = outcomes(|swap| {
        let ([first, _], _, told) = two_devices();
        let end = move || first.lose_trust().unwrap();
        let ((), asleep) = race(swap, end, move || sleeps(first, Refuse::Quota));
        let told = told.0.load(std::sync::atomic::Ordering::Relaxed);
        assert!(told > 0 || !asleep, "asleep, and never told");
        (asleep, told)
    });
    assert_eq!(met, [(false, 0), (false, 1), (true, 1)]);
}

/// The last slot is the second device's, whatever the first one does at its quota meanwhile.
#[test]
fn loom_who_is_at_its_quota_is_in_nobodys_way() {
    let met = outcomes(|swap| {
        let ([first, second], _, _) = two_devices();
        let refused = move || (map(first).err(), map(first).err());
        let (refused, mapped) = race(swap, refused, move || map(second).is_ok());
        assert_eq!(refused, (Some(Refuse::Quota), Some(Refuse::Quota)));
        mapped
    });
    assert_eq!(met, [true]);
}
