//! After every step: all that the layer says, all that the machine knows, and the model.

use coco_dma::ledger::GranuleState;
use coco_dma::ledger::RangeState;
use coco_dma::state::CacheMode;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;
use coco_dma_sim::Violation;

use super::world::MemoryPlace;
use super::world::World;

impl World<'_> {
    pub(crate) fn check(&mut self) {
        self.check_granules();
        self.check_pools();
        self.check_devices();
        self.check_bytes();
        self.check_peers();
        self.check_machine();
        self.rearm();
    }

    /// States and pins; quarantine as bytes and as a list; and, unless the platform lies as it
    /// likes, that memory is in the state that the books say.
    fn check_granules(&self) {
        let (ledger, now) = (self.dma.ledger(), &self.now);
        let mut lost = Vec::new();
        for (number, (state, pins)) in self.model.granules.iter().enumerate() {
            let range = self.part(number..number + 1);
            // Of somebody else's memory nothing is counted.
            let kept = match ledger.peek(range) {
                RangeState::Foreign(visibility) => (visibility.into(), 0),
                _ => ledger.granule(range.base()).map(|kept| (kept.state, kept.pins)).unwrap(),
            };
            assert_eq!(kept, (*state, *pins), "granule {number}; {now}");
            let truth = match state {
                GranuleState::Private => State::PRIVATE,
                GranuleState::Shared => State::SHARED,
                _ => {
                    lost.push(range);
                    continue;
                }
            };
            let true_to_it = self.wild || self.machine.all_in(range, truth);
            assert!(true_to_it, "granule {number} is not {state}; {now}");
        }
        assert_eq!(ledger.quarantined(), self.model.in_quarantine(), "{now}");
        let listed: Vec<_> = ledger
            .quarantine()
            .flat_map(|run| {
                let granule = self.model.granule;
                (0..run.len() / granule).map(move |index| run.slice(index * granule, granule))
            })
            .flatten()
            .collect();
        assert_eq!(listed, lost, "{now}");
        assert_eq!(self.model.lost - self.model.recovered, self.model.in_quarantine(), "{now}");
        assert_eq!(*self.log.lost.lock().unwrap(), self.model.lost, "as told; {now}");
        assert_eq!(*self.log.recovered.lock().unwrap(), self.model.recovered, "as told; {now}");
    }

    fn check_pools(&self) {
        let now = &self.now;
        for (index, (pool, model)) in self.pools.iter().zip(&self.model.pools).enumerate() {
            let used = model.slots.iter().filter(|id| **id != 0).count();
            assert_eq!((pool.is_open(), pool.used()), (model.open, used), "pool {index}; {now}");
            let free = if model.open { model.slots.len() - used } else { 0 };
            assert_eq!(pool.free(), free, "pool {index}; {now}");
            let held: Vec<_> =
                pool.held().map(|held| (held.first, held.count, held.allocated)).collect();
            let mut wanted: Vec<_> = self
                .model
                .holds
                .values()
                .filter(|hold| hold.pool == index)
                .map(|hold| (hold.first, hold.count, hold.allocated))
                .collect();
            wanted.sort_unstable();
            assert_eq!(held, wanted, "pool {index}; {now}");
        }
    }

    fn check_devices(&self) {
        let now = &self.now;
        for (index, (device, model)) in self.devices.iter().zip(&self.model.devices).enumerate() {
            assert_eq!(device.counters(), model.counters, "device {index}; {now}");
            let charged = if model.quota.is_some() { model.charged } else { 0 };
            assert_eq!(device.charged(), charged, "device {index}; {now}");
            assert_eq!(device.is_alive(), model.stopped.is_none(), "device {index}; {now}");
            let holds: usize = self
                .model
                .holds
                .values()
                .filter(|hold| hold.device == index)
                .map(|hold| {
                    // Rule 8.
                    let shared = self.model.pools[hold.pool].label == PoolLabel::GuestShared;
                    assert!(!(model.accepted && shared), "device {index}; {now}");
                    hold.count
                })
                .sum();
            assert_eq!(device.holds(), holds, "device {index}; {now}");
        }
        let told = (*self.log.bounced.lock().unwrap(), *self.log.refused.lock().unwrap());
        assert_eq!(told, self.model.told, "{now}");
    }

    /// The heap, what devices see, and rings from both sides.
    fn check_bytes(&self) {
        let now = &self.now;
        let mut heap = vec![0; self.model.heap.len()];
        self.machine.guest_read(self.part(self.heap()).base(), &mut heap);
        let granule = usize::try_from(self.model.granule).unwrap();
        for (number, (have, want)) in
            heap.chunks(granule).zip(self.model.heap.chunks(granule)).enumerate()
        {
            let lost = self.model.granules[self.heap().start + number].0;
            assert!(lost == GranuleState::Quarantined || have == want, "heap {number}; {now}");
        }
        for map in self.maps.iter().filter(|_| !self.wild) {
            if self.model.devices[map.device].stopped.is_some() {
                continue;
            }
            let seen = self.nics[map.device].fetch(map.mapping.addr().raw(), map.len);
            let wanted = match &map.bounced {
                Some((_, slots)) => slots.clone(),
                None => self.model.heap[map.at..map.at + map.len].to_vec(),
            };
            assert_eq!(seen, Ok(wanted), "a map at {:#x}; {now}", map.at);
        }
        for memory in self.memories.iter().filter(|_| !self.wild) {
            if self.model.devices[memory.device].stopped.is_some() {
                continue;
            }
            let addr = memory.memory.addr().raw();
            let seen = self.nics[memory.device].fetch(addr, memory.bytes.len());
            assert_eq!(seen.as_ref(), Ok(&memory.bytes), "{now}");
        }
    }

    fn check_machine(&self) {
        let now = &self.now;
        let violations: Vec<_> = self
            .machine
            .violations()
            .into_iter()
            // Asking for a view is how a lie comes to light.
            .filter(|violation| self.honest || !matches!(violation, Violation::WrongView { .. }))
            .collect();
        assert_eq!(violations, [], "{now}");
        let faults: Vec<_> = self.arena.faults().into_iter().filter(|_| !self.wild).collect();
        assert_eq!(faults, Vec::<String>::new(), "{now}");
        let lost = self
            .arena_granules()
            .filter(|number| self.model.granules[*number].0 == GranuleState::Quarantined);
        let page = usize::try_from(self.model.granule / 4096).unwrap();
        assert_eq!(self.arena.taken(), self.model.pages + lost.count() * page, "{now}");
        // Slots that are not cached have a view of their own.
        let pages = |memory: &&super::world::LiveMemory| {
            matches!(memory.place, MemoryPlace::Pages(..))
                || memory.memory.cache() != CacheMode::WriteBack
        };
        let open = self.model.pools.iter().filter(|pool| pool.open && !pool.adopted).count();
        let views = self.memories.iter().filter(pages).count() + open;
        assert_eq!(self.machine.open_views(), views, "{now}");
        if !self.wild {
            assert_eq!(self.machine.leaks(), [], "{now}");
        }
    }
}
