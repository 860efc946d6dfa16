//! How a device ends: what it had is free and not charged any more, who waits for what it will not
//! get is woken, and whoever listens is told.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use coco_dma::Dma;
use coco_dma::attrs::Attrs;
use coco_dma::device::BindError;
use coco_dma::device::Device;
use coco_dma::device::Endpoint;
use coco_dma::observe::Event;
use coco_dma::observe::Observer;
use coco_dma::plan::Limits;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::waiters::CapacityListener;
use coco_dma::waiters::Watch;
use coco_dma_sim::Machine;

use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::SIZE;
use crate::support::adopt;
use crate::support::alloc;
use crate::support::finish;
use crate::support::free;
use crate::support::machine;
use crate::support::map;
use crate::support::revoke;
use crate::support::run;
use crate::support::vouch;
use crate::support::words;

#[derive(Default)]
struct Woken(AtomicUsize);

impl CapacityListener for Woken {
    fn capacity(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The ends that were told, with their slots.
#[derive(Default)]
struct Ends(Mutex<Vec<(&'static str, String, usize)>>);

impl Observer for Ends {
    fn event(&self, event: &Event<'_>) {
        let end = match event {
            Event::Revoked { device, slots } => ("revoked", (*device).to_owned(), *slots),
            Event::TrustLost { device } => ("trust lost", (*device).to_owned(), 0),
            _ => return,
        };
        self.0.lock().unwrap().push(end);
    }
}

/// What a test has: a device of three slots whose bounces fill a pool of four with another's, and
/// who is woken for its quota and for the pool.
struct Stage<'s> {
    machine: &'s Machine,
    device: Device<'s, Machine>,
    other: Device<'s, Machine>,
    quota: &'s Woken,
    space: &'s Woken,
    ends: &'s Ends,
}

fn on_stage(play: impl FnOnce(&Stage<'_>)) {
    let machine = machine(PlatformName::Tdx);
    let storage = words(1 << 8);
    let (quota, space, ends) = (Woken::default(), Woken::default(), Ends::default());
    let top = run(BASE + SIZE - 2 * GRANULE, 2 * GRANULE);
    let pools = [adopt(&machine, PoolLabel::GuestPrivate, top, &storage).with_listener(&space)];
    let dma = Dma::new(&machine, &pools).with_observer(&ends);
    let endpoint = |name| Endpoint::new(name).accepted(vouch()).force_bounce();
    let device = dma.bind(endpoint("gpu").quota(3).listener(&quota), Limits::NONE).unwrap();
    let other = dma.bind(endpoint("other"), Limits::NONE).unwrap();
    play(&Stage { machine: &machine, device, other, quota: &quota, space: &space, ends: &ends });
}

impl Stage<'_> {
    /// Ends the device by `end`, which is told as `told`, while it waits for quota and for slots.
    fn ends_waiting(&self, end: impl FnOnce(&Device<'_, Machine>), told: (&'static str, usize)) {
        let buffer = self.machine.alloc(4096).unwrap();
        let first = || map(&self.other, buffer.bytes(), Direction::ToDevice, Attrs::NONE).unwrap();
        let (one, two) = (first(), first());
        let refused = map(&self.device, buffer.bytes(), Direction::ToDevice, Attrs::NONE);
        assert_eq!(refused.unwrap_err().reason, Refuse::PoolFull);
        assert_eq!(self.device.watch_capacity(Refuse::PoolFull), Watch::Set);
        assert_eq!(self.device.watch_capacity(Refuse::Quota), Watch::Set);
        assert_eq!([self.quota, self.space].map(|woken| woken.0.load(Ordering::SeqCst)), [0, 0]);
        end(&self.device);
        let woken = [self.quota, self.space].map(|woken| woken.0.load(Ordering::SeqCst));
        assert_eq!(woken, [1, 1], "it sleeps for what it will not get");
        assert_eq!(*self.ends.0.lock().unwrap(), [(told.0, "gpu".to_owned(), told.1)]);
        [one, two].into_iter().for_each(|mapping| finish(&self.other, mapping, 0));
    }
}

#[test]
fn who_waits_with_a_device_that_is_revoked_is_woken() {
    on_stage(|stage| stage.ends_waiting(|device| _ = revoke(device), ("revoked", 0)));
}

#[test]
fn who_waits_with_a_device_that_lost_its_trust_is_woken() {
    on_stage(|stage| stage.ends_waiting(|gpu| gpu.lose_trust().unwrap(), ("trust lost", 0)));
}

#[test]
fn what_a_revoked_device_had_is_free_told_and_not_charged_any_more() {
    on_stage(|stage| {
        let buffer = stage.machine.alloc(4096).unwrap();
        let mapping = map(&stage.device, buffer.bytes(), Direction::ToDevice, Attrs::NONE).unwrap();
        assert_eq!((stage.device.charged(), stage.device.holds()), (2, 2));
        assert_eq!(revoke(&stage.device), 2);
        assert_eq!((stage.device.charged(), stage.device.holds()), (0, 0));
        assert_eq!(*stage.ends.0.lock().unwrap(), [("revoked", "gpu".to_owned(), 2)]);
        // All of the pool is there for others, and the late record takes nothing from them.
        let all = [(); 2]
            .map(|()| map(&stage.other, buffer.bytes(), Direction::ToDevice, Attrs::NONE).unwrap());
        finish(&stage.device, mapping, 0);
        assert_eq!((stage.device.charged(), stage.other.holds()), (0, 4));
        all.into_iter().for_each(|mapping| finish(&stage.other, mapping, 0));
    });
}

#[test]
fn a_device_of_which_anything_lives_is_not_bound_anew() {
    on_stage(|stage| {
        let endpoint = || Endpoint::new("gpu").accepted(vouch()).force_bounce();
        let dma = stage.device.dma();
        let bind = || dma.bind(endpoint(), Limits::NONE).unwrap();
        let buffer = stage.machine.alloc(64).unwrap();
        let device = bind();
        let mapping = map(&device, buffer.bytes(), Direction::ToDevice, Attrs::NONE).unwrap();
        let (device, error) = device.rebind(endpoint(), Limits::NONE).unwrap_err();
        assert_eq!(error, BindError::InUse { maps: 1, allocations: 0, slots: 1 });
        finish(&device, mapping, 0);
        let memory = alloc(&device, 4096, Context::Blocking).unwrap();
        let (device, error) = device.rebind(endpoint(), Limits::NONE).unwrap_err();
        assert_eq!(error, BindError::InUse { maps: 0, allocations: 1, slots: 2 });
        free(&device, memory);
        assert!(device.rebind(endpoint(), Limits::NONE).is_ok());
    });
}
