//! A driver that owns its device, its ring and its maps, with every kind of handle, and without a
//! line of unsafe code; and handles that do not keep to one device.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use coco_dma::Dma;
use coco_dma::attrs::Attrs;
use coco_dma::coherent::Coherent;
use coco_dma::coherent::CoherentInit;
use coco_dma::coherent::NotFreed;
use coco_dma::device::AnyDevice;
use coco_dma::device::Device;
use coco_dma::device::DeviceRef;
use coco_dma::device::Endpoint;
use coco_dma::ledger::Ledger;
use coco_dma::plan::Limits;
use coco_dma::pool::Pool;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::state::Trust;
use coco_dma::stream::Mapping;
use coco_dma::stream::NotUnmapped;
use coco_dma_sim::Machine;
use coco_dma_sim::Outcome;
use coco_dma_sim::SimDevice;

use crate::support::Arena;
use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::adopt;
use crate::support::machine;
use crate::support::metadata;
use crate::support::metadata_words;
use crate::support::run;
use crate::support::words;

/// The driver of issue and documentation: device, ring and maps in one struct.
struct Nic<H: DeviceRef + Clone> {
    device: H,
    ring: Option<Coherent<H>>,
    inflight: [Option<Mapping<H, Vec<u8>>>; 4],
}

impl<H: DeviceRef + Clone> Nic<H> {
    fn probe(device: H) -> Self {
        let mut ring = CoherentInit::new(device.clone(), 4096, Context::Blocking).unwrap();
        ring.bytes().write(0, &[7; 16]).unwrap();
        Self { device, ring: Some(ring.expose()), inflight: Default::default() }
    }

    fn send(&mut self, slot: usize, packet: &[u8]) -> u64 {
        let (device, packet) = (self.device.clone(), packet.to_vec());
        let mapping = Mapping::new(device, packet, Direction::ToDevice, Attrs::NONE).unwrap();
        let addr = mapping.addr().raw();
        assert!(self.inflight[slot].replace(mapping).is_none());
        addr
    }

    fn complete(&mut self, slot: usize) -> Vec<u8> {
        self.inflight[slot].take().unwrap().unmap(0).unwrap()
    }
}

/// The driver goes: fields may be dropped in any order.
impl<H: DeviceRef + Clone> Drop for Nic<H> {
    fn drop(&mut self) {
        for mapping in self.inflight.iter_mut().filter_map(Option::take) {
            mapping.unmap(0).unwrap();
        }
        self.ring.take().unwrap().free(Context::Blocking).unwrap();
    }
}

/// What such a driver does, and what its device sees of it.
fn drive<H: DeviceRef + Clone>(machine: &Machine, handle: &H) {
    let device = SimDevice::new(machine, "nic", Trust::Untrusted);
    let mut nic = Nic::probe(handle.clone());
    let mut seen = [0; 16];
    let ring = nic.ring.as_ref().unwrap().addr().raw();
    assert_eq!(device.read(ring, &mut seen), Outcome::Clear);
    assert_eq!(seen, [7; 16]);
    for slot in 0..4 {
        let at = nic.send(slot, b"a packet of it  ");
        assert_eq!(device.read(at, &mut seen), Outcome::Clear);
        assert_eq!(&seen, b"a packet of it  ");
    }
    assert_eq!(nic.complete(1), b"a packet of it  ");
    assert_eq!(nic.device.device().counters().live(), 3);
    drop(nic);
    let counters = handle.device().counters();
    assert_eq!((counters.live(), counters.lost), (0, 0));
}

/// A kernel's own pointer.
struct Own<'d>(Arc<Device<'d, Machine>>);

impl<'d> Deref for Own<'d> {
    type Target = Device<'d, Machine>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Clone for Own<'_> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A machine with all that a layer needs, for one test.
fn with_layer(test: impl FnOnce(&Machine, &Arena, &Dma<'_, Machine>, &Pool<'_>)) {
    let machine = machine(PlatformName::Tdx);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let slots = words(Pool::words(8 * GRANULE));
    let pools = [adopt(&machine, PoolLabel::GuestShared, run(BASE, 8 * GRANULE), &slots)];
    let arena = Arena::new(&machine, 8 * GRANULE);
    let ledger = Ledger::new(&metadata).unwrap();
    let dma = Dma::new(&machine, &pools).with_ledger(ledger).with_pages(&arena);
    test(&machine, &arena, &dma, &pools[0]);
    assert_eq!((machine.violations(), arena.faults()), (vec![], vec![]));
}

#[test]
fn a_driver_owns_its_device_its_ring_and_its_maps() {
    with_layer(|machine, arena, dma, pool| {
        let bind = || dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        let device = bind();
        drive(machine, &&device);
        drive(machine, &Rc::new(bind()));
        // Hot-plugged eight times: nothing of a round is left.
        for _ in 0..8 {
            let device = Arc::new(bind());
            drive(machine, &device);
            drive(machine, &Own(device.clone()));
            assert_eq!(Arc::strong_count(&device), 1);
            assert_eq!((pool.used(), arena.taken()), (0, 0));
        }
    });
}

#[test]
fn a_mapping_travels_with_its_handle() {
    with_layer(|_, _, dma, pool| {
        let device = Arc::new(dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap());
        let (buffer, both) = (vec![3; 100], Direction::Both);
        let mapping = Mapping::new(device.clone(), buffer, both, Attrs::NONE).unwrap();
        drop(device);
        let ended = std::thread::scope(|scope| scope.spawn(|| mapping.unmap(0).unwrap()).join());
        assert_eq!((ended.unwrap(), pool.used()), (vec![3; 100], 0));
    });
}

/// A guard that is dropped without an end keeps what it has, and its handle is dropped all the same.
#[test]
fn what_is_dropped_is_counted_and_kept() {
    with_layer(|_, _, dma, pool| {
        let device = Arc::new(dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap());
        let (to, none) = (Direction::ToDevice, Attrs::NONE);
        drop(Mapping::new(device.clone(), vec![1; 100], to, none).unwrap());
        drop(CoherentInit::new(device.clone(), 4096, Context::Blocking).unwrap());
        assert_eq!((Arc::strong_count(&device), device.counters().lost), (1, 2));
        assert_eq!(pool.used(), 1);
        // What was refused is not lost, and its buffer comes back.
        let refused = Mapping::new(device.clone(), vec![2; 1 << 20], to, none).unwrap_err();
        assert_eq!(refused.into_buffer(), vec![2; 1 << 20]);
        assert!(CoherentInit::new(device.clone(), 1 << 30, Context::Blocking).is_err());
        assert_eq!((Arc::strong_count(&device), device.counters().lost), (1, 2));
    });
}

/// Leads to one device, and then to the other.
struct Alternates<'a, 'd> {
    devices: [&'a Device<'d, Machine>; 2],
    which: &'a Cell<usize>,
}

impl<'d> Deref for Alternates<'_, 'd> {
    type Target = Device<'d, Machine>;

    fn deref(&self) -> &Self::Target {
        self.devices[self.which.get()]
    }
}

#[test]
fn a_handle_that_changes_its_answer_gets_an_error_and_loses_nothing() {
    with_layer(|machine, arena, dma, pool| {
        let bind = |name| dma.bind(Endpoint::new(name), Limits::NONE).unwrap();
        let (one, other) = (bind("one"), bind("other"));
        let which = Cell::new(0);
        let handle = || Alternates { devices: [&one, &other], which: &which };
        let sim = SimDevice::new(machine, "one", Trust::Untrusted);

        let (buffer, none) = (vec![5; 64], Attrs::NONE);
        let mut mapping = Mapping::new(handle(), buffer, Direction::Both, none).unwrap();
        let addr = mapping.addr().raw();
        assert_eq!(sim.write(addr, &[9; 64]), Outcome::Clear);
        which.set(1);
        // Neither a sync nor the end does anything by another device.
        mapping.sync_for_cpu(0..64);
        let mut seen = [0; 64];
        mapping.read(0, &mut seen).unwrap();
        assert_eq!(seen, [5; 64]);
        let failed = mapping.unmap(64).unwrap_err();
        assert_eq!((failed.error(), pool.used()), (NotUnmapped::NotThisDevice, 1));
        let failed = failed.retry(&other).unwrap_err();
        assert_eq!(failed.retry(&one).unwrap(), vec![9; 64]);
        assert_eq!((pool.used(), one.counters().live(), other.counters().live()), (0, 0, 0));

        which.set(0);
        let ring = CoherentInit::new(handle(), 4096, Context::Blocking).unwrap();
        which.set(1);
        let failed = ring.discard(Context::Blocking).unwrap_err();
        assert_eq!((failed.reason, arena.taken()), (NotFreed::NotThisDevice, 1));
        which.set(0);
        failed.memory.discard(Context::Blocking).unwrap();
        assert_eq!(arena.taken(), 0);
    });
}

/// Code that is generic over handles names the platform by the device's type.
#[test]
fn the_platform_is_known_by_the_device() {
    fn regime<H: DeviceRef>(handle: &H) -> String
    where
        <H::Target as AnyDevice>::Platform: coco_dma::platform::Platform,
    {
        format!("{:?}", handle.device().regime())
    }
    with_layer(|_, _, dma, _| {
        let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        assert_eq!(regime(&&device), format!("{:?}", dma.regime()));
    });
}
