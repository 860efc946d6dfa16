//! One buffer of one device: what the table says, what `plan` says, and where the map lands.
// UNSAFETY: raw buffers are mapped.
#![expect(unsafe_code)]

use std::collections::BTreeSet;
use std::format;
use std::string::String;
use std::sync::Mutex;
use std::vec;
use std::vec::Vec;

use core::ptr::NonNull;

use super::super::Held;
use super::super::RawMapping;
use super::world::Machine;
use super::world::POOL;
use super::world::places;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::observe::Event;
use crate::observe::Observer;
use crate::plan;
use crate::plan::Plan;
use crate::plan::PoolVerdict;
use crate::plan::Step;
use crate::plan::state_of;
use crate::platform::Platform;
use crate::reason::Bounce;
use crate::state::Direction;
use crate::stream::MapError;

/// Lengths of buffers in bytes: the last but one takes more slots than a word has bits, the last one
/// is longer than a pool.
const LENGTHS: [usize; 5] = [1, 2049, 9000, 0x2_1000, POOL + 1];
const DIRECTIONS: [Direction; 3] = [Direction::ToDevice, Direction::FromDevice, Direction::Both];

/// The reason of the last bounce that was told.
#[derive(Default)]
pub(super) struct Told(Mutex<Option<Bounce>>);

impl Observer for Told {
    fn event(&self, event: &Event<'_>) {
        if let Event::Bounced { reason, .. } = event {
            *self.0.lock().unwrap() = Some(*reason);
        }
    }
}

/// One buffer of one device.
struct Question<'a> {
    device: &'a Device<'a, Machine>,
    told: &'a Told,
    /// Where the pools' bytes are, by number.
    views: &'a [NonNull<u8>],
    buffer: NonNull<[u8]>,
    direction: Direction,
    range: Option<PhysRange>,
}

impl Question<'_> {
    fn plan(&self, steps: &mut Vec<Step>) -> Plan<'_> {
        let len = self.buffer.len() as u64;
        let (range, direction) = (self.range, self.direction);
        let request = self.device.request(range, len, direction, Attrs::NONE);
        plan::map(&request, &mut |step| steps.push(step))
    }

    /// The table says the same as `plan`, where it says anything.
    fn compare(&self) -> bool {
        let Some(entry) = self.device.table_entry(self.range, self.buffer.len()) else {
            return false;
        };
        let mut steps = Vec::new();
        let plan = self.plan(&mut steps);
        let Plan::Bounce { reason, mut pools, cache_work } = plan else {
            panic!("the table bounces it ({}), plan says {plan:?}", entry.reason);
        };
        let first = pools.next().unwrap();
        let default_pool = self.device.default_pool().unwrap();
        let table = (entry.reason, default_pool.index, Some(default_pool.base));
        assert_eq!(table, (reason, first.index, first.base));
        assert_eq!((first.pad, cache_work), (0, false));
        let info = self.device.pool_infos()[default_pool.index];
        let pool = self.device.pool(default_pool.index).unwrap();
        assert!(core::ptr::eq(default_pool.pool, pool));
        assert_eq!(Some(first.state), state_of(self.device.regime(), info.label));
        assert!(steps.contains(&Step::Wanted(entry.reason)));
        let (label, range) = (info.label, info.range);
        assert!(steps.contains(&Step::Pool { label, range, verdict: PoolVerdict::Suits }));
        true
    }

    /// The map is what `plan` says; it is still alive then, if there is one.
    fn landed(&self, mapped: Result<RawMapping, MapError>) -> Option<RawMapping> {
        let mapping = match (mapped, self.plan(&mut Vec::new())) {
            (Err(error), Plan::Refuse(reason)) => {
                assert_eq!(error.reason, reason);
                return None;
            }
            (Err(error), plan) => panic!("{error}, but plan says {plan:?}"),
            (Ok(mapping), _) => mapping,
        };
        match (&mapping.place, self.plan(&mut Vec::new())) {
            (Held::Open | Held::InPlace { .. }, Plan::Direct { addr, .. }) => {
                assert_eq!(Some(mapping.addr), addr);
            }
            (Held::Slots { pool, at, .. }, Plan::Bounce { reason, mut pools, .. }) => {
                assert_eq!(self.told.0.lock().unwrap().take(), Some(reason));
                let (first, offset) = (pools.next().unwrap(), *at as u64);
                let addr = first.base.and_then(|base| base.checked_add(offset));
                assert_eq!((*pool, Some(mapping.addr)), (first.index, addr));
                assert_eq!(first.places.from(offset), Some(offset), "{first:?}");
                self.bytes(self.views[*pool], *at);
            }
            (place, plan) => panic!("{place:?}, but plan says {plan:?}"),
        }
        Some(mapping)
    }

    /// What lies in the slots is what the device should see: the driver's bytes, or none at all.
    fn bytes(&self, view: NonNull<u8>, at: usize) {
        let wanted = if self.direction.to_device() { 0xA5 } else { 0 };
        for offset in [0, self.buffer.len() - 1] {
            // SAFETY: the mapping lies in its pool.
            let byte = unsafe { view.add(at + offset) };
            // SAFETY: nobody writes to it now.
            assert_eq!(unsafe { byte.read_volatile() }, wanted);
        }
    }

    /// Asks everything; true where the map was made by the table.
    fn ask(&self) -> bool {
        let known = self.compare();
        if self.device.domain().is_some() {
            assert!(!known, "behind a domain nothing is known before");
            return false;
        }
        let (buffer, direction) = (self.buffer, self.direction);
        // SAFETY: the buffer lives on, and there is no device that could use it.
        let one = self.landed(unsafe { self.device.map_raw(buffer, direction, Attrs::NONE) });
        // The other one finds the best place taken.
        let mut hand = self.device.hand();
        // SAFETY: as above.
        let quick = unsafe { self.device.map_fast(&mut hand, buffer, self.range, direction) };
        let quick = quick.and_then(|mapping| self.landed(Ok(mapping)));
        assert!(known || quick.is_none());
        let made = quick.is_some();
        for mapping in one.into_iter().chain(quick) {
            // SAFETY: there is no device that could use it.
            unsafe { self.device.unmap_raw(mapping, buffer.len()) }.unwrap();
        }
        made
    }
}

/// All buffers of one device. Adds what the table made to `made`.
pub(super) fn ask_all(
    machine: &Machine,
    device: &Device<'_, Machine>,
    told: &Told,
    views: &[NonNull<u8>],
    made: &mut BTreeSet<String>,
) {
    let mut bytes = vec![0u8; POOL + 1];
    let mut turn = 0;
    for at in places(device.regime()) {
        machine.put(at);
        for len in LENGTHS {
            (bytes[0], bytes[len - 1]) = (0xA5, 0xA5);
            let buffer = NonNull::from(&mut bytes[..len]);
            let range = machine.locate(buffer);
            if range.is_none() && at.is_some() {
                continue;
            }
            let direction = DIRECTIONS[turn % 3];
            turn += 1;
            let question = Question { device, told, views, buffer, direction, range };
            if question.ask() {
                let reason = device.table_entry(range, len).unwrap().reason;
                made.insert(format!("{} {}", device.memory(range), reason.slug()));
            }
        }
    }
}
