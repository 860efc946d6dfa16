//! A listener may call the layer, and one that panics costs nothing.

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
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;

use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::SIZE;
use crate::support::adopt;
use crate::support::finish;
use crate::support::machine;
use crate::support::map;
use crate::support::run;
use crate::support::vouch;
use crate::support::words;

/// Panics at events of this kind.
struct Panics {
    at: &'static str,
    maps: bool,
    heard: Mutex<Vec<&'static str>>,
}

impl Observer for Panics {
    fn event(&self, event: &Event<'_>) {
        let kind = match event {
            Event::Bounced { .. } => "bounced",
            Event::Mapped { .. } => "mapped",
            Event::Unmapped(_) => "unmapped",
            _ => return,
        };
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(kind);
        assert_ne!(kind, self.at, "the listener's panic");
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
        let observer = Panics { at, maps, heard };
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
