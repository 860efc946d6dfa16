//! A listener may call the layer, and one that panics costs nothing.
// UNSAFETY: memory of a simulated machine is freed by its record.
#![expect(unsafe_code)]

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::PoisonError;

use coco_dma::Dma;
use coco_dma::attrs::Attrs;
use coco_dma::device::Endpoint;
use coco_dma::observe::Event;
use coco_dma::observe::Observer;
use coco_dma::plan::Limits;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;

use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::SIZE;
use crate::support::adopt;
use crate::support::finish;
use crate::support::machine;
use crate::support::map;
use crate::support::map_list;
use crate::support::run;
use crate::support::vouch;
use crate::support::words;

/// Panics at events of this kind.
struct Panics {
    at: &'static str,
    /// At the how manieth of them, from 1 on.
    nth: usize,
    maps: bool,
    heard: Mutex<Vec<&'static str>>,
}

impl Observer for Panics {
    fn event(&self, event: &Event<'_>) {
        let kind = match event {
            Event::Bounced { .. } => "bounced",
            Event::Mapped { .. } => "mapped",
            Event::Unmapped(_) => "unmapped",
            Event::Allocated { .. } => "allocated",
            Event::Freed(_) => "freed",
            _ => return,
        };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push(kind);
        let count = heard.iter().filter(|heard| **heard == self.at).count();
        drop(heard);
        assert!(kind != self.at || count != self.nth, "the listener's panic");
    }

    fn wants_maps(&self) -> bool {
        self.maps
    }
}

#[test]
fn a_listener_that_panics_leaves_no_slot_and_no_charge() {
    for (at, maps) in [("bounced", false), ("bounced", true), ("mapped", true), ("unmapped", true)]
    {
        let machine = machine(PlatformName::Tdx);
        let storage = words(1 << 8);
        let top = run(BASE + SIZE - 2 * GRANULE, 2 * GRANULE);
        let pools = [adopt(&machine, PoolLabel::GuestPrivate, top, &storage)];
        let heard = Mutex::default();
        let observer = Panics { at, nth: 1, maps, heard };
        let dma = Dma::new(&machine, &pools).with_observer(&observer);
        let endpoint = Endpoint::new("nic").accepted(vouch()).force_bounce().quota(3);
        let device = dma.bind(endpoint, Limits::NONE).unwrap();
        let buffer = machine.alloc(64).unwrap();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let record = map(&device, buffer.bytes(), Direction::ToDevice, Attrs::NONE).unwrap();
            finish(&device, record, 0);
        }));
        assert!(ended.is_err(), "{at}: not heard");
        assert_eq!((pools[0].used(), device.charged()), (0, 0), "{at}, maps told: {maps}");
        assert_eq!(device.counters().live(), 0, "{at}, maps told: {maps}");
    }
}

/// A list is told of when all of it is mapped: a panic at any piece ends all of them.
#[test]
fn a_listener_that_panics_at_a_list_leaves_nothing_of_it() {
    for (at, maps) in [("bounced", false), ("mapped", true)] {
        let machine = machine(PlatformName::Tdx);
        let storage = words(1 << 8);
        let top = run(BASE + SIZE - 2 * GRANULE, 2 * GRANULE);
        let pools = [adopt(&machine, PoolLabel::GuestPrivate, top, &storage)];
        let observer = Panics { at, nth: 2, maps, heard: Mutex::default() };
        let dma = Dma::new(&machine, &pools).with_observer(&observer);
        let endpoint = Endpoint::new("nic").accepted(vouch()).force_bounce().quota(3);
        let device = dma.bind(endpoint, Limits::NONE).unwrap();
        let buffers = [machine.alloc(64).unwrap(), machine.alloc(64).unwrap()];
        let list = [buffers[0].bytes(), buffers[1].bytes()];
        let mut entries = [const { None }; 2];
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let made = map_list(&device, &list, Direction::ToDevice, &mut entries);
            made.map(|list| list.len())
        }));
        assert!(ended.is_err(), "{at}: not heard");
        assert!(entries.iter().all(Option::is_none), "{at}");
        assert_eq!((pools[0].used(), device.charged()), (0, 0), "{at}");
        assert_eq!(device.counters().live(), 0, "{at}");
    }
}

/// A scattered allocation that came in one run was told of when it was freed, and not when it was
/// made.
#[test]
fn a_scattered_allocation_is_told_of_at_both_ends_or_at_none() {
    let machine = machine(PlatformName::Tdx);
    let storage = words(1 << 8);
    let top = run(BASE + SIZE - 2 * GRANULE, 2 * GRANULE);
    let pools = [adopt(&machine, PoolLabel::GuestPrivate, top, &storage)];
    let observer = Panics { at: "", nth: 0, maps: true, heard: Mutex::default() };
    let dma = Dma::new(&machine, &pools).with_observer(&observer);
    let device = dma.bind(Endpoint::new("nic").accepted(vouch()), Limits::NONE).unwrap();
    let mut room = [const { None }; 2];
    let memory = device.alloc_scattered(100, Context::Blocking, Attrs::NONE, &mut room).unwrap();
    // SAFETY: no device was given the address.
    unsafe { device.free_scattered(memory) }.unwrap();
    assert_eq!(*observer.heard.lock().unwrap(), ["allocated", "freed"]);
}
