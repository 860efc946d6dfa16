//! A million steps at random, the same ones every time, against a model that is a list of slots:
//! maps of devices with every kind of limit, slots taken by hand, on any CPU and with a handle,
//! pools filled to the last slot and emptied, one that comes and goes. No slot is given twice, none
//! is lost, what is in use is known exactly, every rule of alignment is kept, and a refusal is true.
//!
//! In a release build (`cargo xtask test` has one) these are a million steps; a debug build takes
//! a fiftieth of them.
// UNSAFETY: raw maps and slots taken by hand are unsafe to give back.
#![expect(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]
#![expect(clippy::cast_possible_truncation, reason = "numbers of a small machine")]

mod dice;
mod machine;
mod model;

use std::ptr::NonNull;

use coco_dma::Dma;
use coco_dma::addr::AlignMask;
use coco_dma::addr::Boundary;
use coco_dma::addr::Constraints;
use coco_dma::addr::SLOT;
use coco_dma::attrs::Attrs;
use coco_dma::convert::ShrinkFailed;
use coco_dma::device::Device;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::pool::Pool;
use coco_dma::pool::PoolHandle;
use coco_dma::pool::SlotRun;
use coco_dma::reason::Refuse;
use coco_dma::state::Direction;
use coco_dma::stream::RawMapping;
use dice::Dice;
use machine::CACHES;
use machine::COMES;
use machine::Machine;
use machine::POOLS;
use model::Model;
use model::Rules;
use model::Span;

const STEPS: usize = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
/// The longest buffer in bytes.
const LONGEST: usize = 400 << 10;
/// Steps from one look at everything to the next.
const LOOK: usize = 4096;

/// The limits of the devices: low bits kept, boundary, segment.
const LIMITS: [(u64, u64, Option<u64>); 7] = [
    (0, 0, None),
    (0xfff, 0, None),
    (0x1ff, 0x4000, None),
    (0x7ff, 0, Some(0x1_0000)),
    (0xfff, 0x1_0000, Some(0x8000)),
    (0, 0x1_0000, None),
    (0xffff, 0x2_0000, None),
];

/// What is held, and by whom.
enum Held {
    Map { device: usize, mapping: RawMapping },
    ByHand(SlotRun),
}

struct Churn<'m> {
    machine: &'m Machine,
    dma: &'m Dma<'m, Machine>,
    pools: &'m [Pool<'m>],
    devices: Vec<Device<'m, Machine>>,
    buffer: NonNull<u8>,
    /// A cache of the first pool.
    handle: Option<PoolHandle<'m>>,
    held: Vec<(Held, Span)>,
    model: Model,
    dice: Dice,
}

impl Churn<'_> {
    /// Some bytes, some slots, or many.
    fn len(&mut self) -> usize {
        match self.dice.below(8) {
            0..3 => 1 + self.dice.below(2048),
            3..6 => 1 + self.dice.below(20 << 10),
            6 => 1 + self.dice.below(140 << 10),
            _ => 1 + self.dice.below(LONGEST),
        }
    }

    fn map(&mut self, with_handle: bool) {
        let number = self.dice.below(LIMITS.len());
        let (keep, boundary, segment) = LIMITS[number];
        let (len, at) = (self.len(), self.dice.below(0x1_0000));
        // SAFETY: the buffer has room for both.
        let start = unsafe { self.buffer.add(at) };
        let (bytes, direction) = (NonNull::slice_from_raw_parts(start, len), Direction::ToDevice);
        let device = &self.devices[number];
        let mapped = match &mut self.handle {
            // SAFETY: the buffer lives long enough; nobody writes to it.
            Some(handle) if with_handle => unsafe {
                device.map_raw_with(handle, bytes, direction, Attrs::NONE)
            },
            // SAFETY: the same.
            _ => unsafe { device.map_raw(bytes, direction, Attrs::NONE) },
        };
        let original = start.addr().get() as u64;
        let rules = Rules { len: len as u64, original, keep, align: 1, boundary };
        match mapped {
            Ok(mapping) => {
                assert!(segment.is_none_or(|segment| rules.len <= segment), "{rules:x?}");
                let (pool, offset) = self.model.place(mapping.addr().raw(), &rules);
                // SAFETY: it is in the pool, as the model checked.
                let there = unsafe { self.machine.memory(pool).add(offset) };
                // SAFETY: the slots are ours.
                assert_eq!(unsafe { there.read() }, unsafe { start.read() }, "the first byte");
                let span = self.model.take(pool, offset, len);
                self.held.push((Held::Map { device: number, mapping }, span));
            }
            Err(error) if segment.is_some_and(|segment| rules.len > segment) => {
                assert_eq!(error.reason, Refuse::TooLarge);
            }
            Err(error) => {
                // The other handle keeps slots that nobody else can have.
                if self.handle.is_none() || with_handle {
                    let room = (0..POOLS.len()).find(|pool| self.model.has_room(*pool, &rules));
                    assert_eq!(room, None, "a refusal ({}) of {rules:x?}", error.reason);
                }
            }
        }
    }

    fn take(&mut self, cpu: usize, with_handle: bool) {
        let len = self.len() as u64;
        let (original, keep) = (self.dice.below(0x1_0000) as u64, (1 << self.dice.below(15)) - 1);
        let align = 1 << self.dice.below(15);
        let boundary = if self.dice.below(2) == 0 { 0 } else { 0x800 << self.dice.below(9) };
        let rules = Rules { len, original, keep, align, boundary };
        let keep = AlignMask::new(keep).unwrap();
        let constraints =
            Constraints { len, original, keep, align, boundary: Boundary::new(boundary) };
        let (pool, taken) = match &mut self.handle {
            Some(handle) if with_handle => (0, handle.alloc_raw(&constraints)),
            _ => {
                let pool = self.dice.below(POOLS.len());
                (pool, self.pools[pool].alloc_raw(cpu, &constraints))
            }
        };
        match taken {
            Ok(run) => {
                let addr = POOLS[pool].0 + run.offset() as u64;
                assert_eq!(self.model.place(addr, &rules), (pool, run.offset()));
                let span = self.model.take(pool, run.offset(), rules.len as usize);
                assert_eq!((run.first(), run.count()), (span.first, span.count));
                self.held.push((Held::ByHand(run), span));
            }
            Err(_) if pool != 0 || self.handle.is_none() || with_handle => {
                assert!(!self.model.has_room(pool, &rules), "a refusal of {rules:x?}");
            }
            Err(_) => {}
        }
    }

    fn free(&mut self, cpu: usize, with_handle: bool) {
        if self.held.is_empty() {
            return;
        }
        let (held, span) = self.held.swap_remove(self.dice.below(self.held.len()));
        self.model.free(&span);
        let handle = self.handle.as_mut().filter(|_| with_handle);
        match held {
            Held::Map { device, mapping } => {
                let device = &self.devices[device];
                let finished = match handle {
                    // SAFETY: the mapping is the device's, and no device is there.
                    Some(handle) => unsafe { device.unmap_raw_with(handle, mapping, 0) },
                    // SAFETY: the same.
                    None => unsafe { device.unmap_raw(mapping, 0) },
                };
                finished.expect("its own");
            }
            Held::ByHand(run) => {
                let given = match handle {
                    // SAFETY: it was taken from this pool.
                    Some(handle) if span.pool == 0 => unsafe { handle.free_raw(run) },
                    // SAFETY: the same.
                    _ => unsafe { self.pools[span.pool].free_raw(cpu, run) },
                };
                assert!(given, "it is held");
            }
        }
    }

    /// The pool comes, or goes if nothing of it is in use.
    fn come_or_go(&mut self) {
        let pool = &self.pools[COMES];
        if !pool.is_open() {
            self.dma.grow(pool).expect("it is closed");
            self.model.open[COMES] = true;
            return;
        }
        let used = self.model.used(COMES);
        let shrunk = self.dma.shrink(pool);
        if used == 0 {
            shrunk.expect("nothing of it is in use");
            self.model.open[COMES] = false;
        } else {
            assert!(matches!(shrunk, Err(ShrinkFailed::InUse { slots }) if slots == used));
        }
    }

    fn step(&mut self, number: usize) {
        let cpu = self.dice.below(CACHES + 1);
        machine::be_on(cpu);
        let with_handle = self.dice.below(2) == 0;
        // Pools fill up, and empty again.
        let takes = if (number / 20_000).is_multiple_of(2) { 60 } else { 35 };
        match self.dice.below(1000) {
            0 if self.handle.is_some() => self.handle = None,
            0 => self.handle = Some(self.pools[0].claim(cpu).expect("nobody has it")),
            1 => self.come_or_go(),
            kind if kind % 100 >= takes => self.free(cpu, with_handle),
            kind if kind.is_multiple_of(3) => self.take(cpu, with_handle),
            _ => self.map(with_handle),
        }
        for (number, pool) in self.pools.iter().enumerate() {
            assert_eq!(pool.used(), self.model.used(number), "pool {number}");
        }
    }

    /// What every slot is, by the pools' own books.
    fn look(&self) {
        for (number, pool) in self.pools.iter().enumerate() {
            let mut held: Vec<_> = self.held.iter().map(|(_, span)| *span).collect();
            held.retain(|span| span.pool == number);
            held.sort_by_key(|span| span.first);
            let listed = pool.held().map(|run| (run.first, run.count));
            assert!(listed.eq(held.iter().map(|span| (span.first, span.count))));
            assert!(pool.high_water() >= self.model.most(number));
        }
        for (number, device) in self.devices.iter().enumerate() {
            let own = |held: &Held| matches!(held, Held::Map { device, .. } if *device == number);
            let held = self.held.iter().filter(|(held, _)| own(held));
            let slots: usize = held.map(|(_, span)| span.count).sum();
            assert_eq!((device.holds(), device.charged()), (slots, slots));
        }
    }
}

#[test]
fn a_million_steps_against_a_model() {
    let machine = Machine::new();
    let pools = machine.pools();
    let dma = Dma::new(&machine, &pools);
    let devices = LIMITS.iter().map(|(keep, boundary, segment)| {
        let min_align = AlignMask::new(*keep).unwrap();
        let boundary = Boundary::new(*boundary);
        let limits = Limits { min_align, boundary, segment: *segment, ..Limits::NONE };
        dma.bind(Endpoint::new("disk").force_bounce().quota(1 << 20), limits).unwrap()
    });
    let bytes: Vec<u8> = (0..LONGEST + 0x3_0000).map(|n| (n % 251) as u8).collect();
    let bytes = NonNull::from(bytes.leak()).cast::<u8>();
    // Its low bits are the same every time, too.
    // SAFETY: there are so many bytes more.
    let buffer = unsafe { bytes.add(bytes.align_offset(0x2_0000)) };
    let mut churn = Churn {
        machine: &machine,
        dma: &dma,
        pools: &pools,
        devices: devices.collect(),
        buffer,
        handle: None,
        held: Vec::new(),
        model: Model::new(),
        dice: Dice(0x5eed),
    };
    for number in 0..STEPS {
        churn.step(number);
        if number.is_multiple_of(LOOK) {
            churn.look();
        }
    }
    churn.handle = None;
    while !churn.held.is_empty() {
        churn.free(0, false);
    }
    churn.look();
    if !pools[COMES].is_open() {
        churn.come_or_go();
    }
    for (pool, (_, slots)) in pools.iter().zip(POOLS) {
        assert_eq!(pool.used(), 0);
        assert!(pool.high_water() <= pool.capacity());
        let all = pool.alloc_raw(0, &Constraints::of(slots * SLOT)).expect("nothing is lost");
        // SAFETY: it was taken from this pool.
        assert!(unsafe { pool.free_raw(0, all) });
    }
    churn.model.says_what_was_met(STEPS);
}
