//! The plain model: what the documents say, kept in vectors, by nobody else's code.

use std::collections::BTreeMap;
use std::ops::Range;

use coco_dma::device::CountersNow;
use coco_dma::ledger::GranuleState;
use coco_dma::reason::Refuse;
use coco_dma::state::Context;
use coco_dma::state::PoolLabel;
use coco_dma::state::PoolUse;

pub(crate) const SLOT: usize = 2048;
/// Slots that a page is made of.
const PAGE_SLOTS: usize = 2;

/// What each part of the machine should be.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) granule: u64,
    /// State and pins of every granule.
    pub(crate) granules: Vec<(GranuleState, usize)>,
    /// The bytes of the heap, as the guest has them.
    pub(crate) heap: Vec<u8>,
    pub(crate) pools: Vec<PoolModel>,
    pub(crate) devices: Vec<DeviceModel>,
    pub(crate) holds: BTreeMap<usize, Hold>,
    next_hold: usize,
    /// Pages of the arena that allocations have.
    pub(crate) pages: usize,
    /// Bytes that came into quarantine, and out of it.
    pub(crate) lost: u64,
    pub(crate) recovered: u64,
    /// Bounces and refusals that were told.
    pub(crate) told: (usize, usize),
}

#[derive(Clone, Debug)]
pub(crate) struct PoolModel {
    pub(crate) label: PoolLabel,
    pub(crate) granules: Range<usize>,
    pub(crate) purpose: PoolUse,
    pub(crate) node: Option<u16>,
    pub(crate) adopted: bool,
    pub(crate) open: bool,
    /// The hold of each slot; 0 where it is free.
    pub(crate) slots: Vec<usize>,
}

/// Slots that a map or an allocation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) pool: usize,
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) device: usize,
    pub(crate) allocated: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct DeviceModel {
    pub(crate) accepted: bool,
    pub(crate) forced: bool,
    pub(crate) coherent: bool,
    pub(crate) node: Option<u16>,
    /// The pool that it is restricted to.
    pub(crate) restricted: Option<usize>,
    pub(crate) quota: Option<usize>,
    pub(crate) charged: usize,
    pub(crate) stopped: Option<Refuse>,
    pub(crate) counters: CountersNow,
}

/// What a map of memory should come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    InPlace,
    Bounce,
    Refuse(Refuse),
}

impl Model {
    pub(crate) fn new(
        granule: u64,
        granules: usize,
        heap: usize,
        pools: Vec<PoolModel>,
        devices: Vec<DeviceModel>,
    ) -> Self {
        let mut granules = vec![(GranuleState::Private, 0); granules];
        for pool in pools.iter().filter(|pool| pool.adopted) {
            let state = match pool.label {
                PoolLabel::GuestShared => GranuleState::Shared,
                _ => GranuleState::Private,
            };
            granules[pool.granules.clone()].fill((state, 0));
        }
        Self {
            granule,
            granules,
            heap: vec![0; heap],
            pools,
            devices,
            holds: BTreeMap::new(),
            next_hold: 1,
            pages: 0,
            lost: 0,
            recovered: 0,
            told: (0, 0),
        }
    }

    /// A map was bounced.
    pub(crate) fn bounced(&mut self, device: usize) {
        self.devices[device].counters.bounced += 1;
        self.told.0 += 1;
    }

    /// A map or an allocation was refused.
    pub(crate) fn refused(&mut self, device: usize) {
        self.devices[device].counters.refused += 1;
        self.told.1 += 1;
    }

    pub(crate) fn in_quarantine(&self) -> u64 {
        let lost = |(state, _): &&(GranuleState, usize)| *state == GranuleState::Quarantined;
        u64::try_from(self.granules.iter().filter(lost).count()).unwrap() * self.granule
    }

    /// The one state of some granules, if they have one.
    pub(crate) fn state(&self, granules: Range<usize>) -> Option<GranuleState> {
        let (first, _) = self.granules[granules.start];
        let same = self.granules[granules].iter().all(|(state, _)| *state == first);
        same.then_some(first)
    }

    pub(crate) fn pinned(&self, granules: Range<usize>) -> bool {
        self.granules[granules].iter().any(|(_, pins)| *pins > 0)
    }

    pub(crate) fn put(&mut self, granules: Range<usize>, state: GranuleState) {
        for (entry, _) in &mut self.granules[granules] {
            *entry = state;
        }
    }

    pub(crate) fn pin(&mut self, granules: Range<usize>) {
        self.granules[granules].iter_mut().for_each(|(_, pins)| *pins += 1);
    }

    pub(crate) fn unpin(&mut self, granules: Range<usize>) {
        self.granules[granules].iter_mut().for_each(|(_, pins)| *pins -= 1);
    }

    /// What a map of these granules comes to; `None` of them are memory in no single run.
    /// `shares_line` says that the device writes into a part of a cache line, `reaches_shared` is
    /// the platform's answer for accepted devices.
    pub(crate) fn way(
        &self,
        device: usize,
        granules: Option<Range<usize>>,
        asserted_shared: bool,
        shares_line: bool,
        reaches_shared: bool,
    ) -> Way {
        let device = &self.devices[device];
        if let Some(reason) = device.stopped {
            return Way::Refuse(reason);
        }
        let state = match granules {
            None => GranuleState::Private,
            Some(granules) => match self.state(granules) {
                None => return Way::Refuse(Refuse::MixedRun),
                Some(GranuleState::Quarantined) => return Way::Refuse(Refuse::Quarantined),
                Some(state) => state,
            },
        };
        let shared = state == GranuleState::Shared;
        if asserted_shared && !shared {
            return Way::Refuse(Refuse::AttributeContradictsLedger);
        }
        if device.restricted.is_some() || device.forced {
            return Way::Bounce;
        }
        let reached = match (device.accepted, shared) {
            (false, shared) => shared,
            (true, false) => true,
            (true, true) => reaches_shared,
        };
        let spoilt = shares_line && !device.coherent;
        if reached && !spoilt { Way::InPlace } else { Way::Bounce }
    }

    /// Takes slots as the documents say: the quota, the pools in their order, the lowest free run.
    /// An allocation (with its context) takes whole pages and the reserve.
    pub(crate) fn take(
        &mut self,
        device: usize,
        len: usize,
        allocation: Option<Context>,
    ) -> Result<usize, Refuse> {
        let pools = self.candidates(device, allocation);
        let count = len.div_ceil(SLOT);
        // Allocations are aligned to their size, as the device and the CPU see them.
        let step = if allocation.is_some() { count.next_power_of_two().max(PAGE_SLOTS) } else { 1 };
        let granule_slots = usize::try_from(self.granule).unwrap() / SLOT;
        let places = |pool: &PoolModel| {
            let base = pool.granules.start * granule_slots;
            let count_of = pool.slots.len();
            (0..count_of).filter(move |first| {
                (base + first).is_multiple_of(step) && first + count <= count_of
            })
        };
        if !pools.iter().any(|pool| places(&self.pools[*pool]).next().is_some()) {
            return Err(Refuse::TooLarge);
        }
        let user = &self.devices[device];
        if user.quota.is_some_and(|quota| user.charged + count > quota) {
            return Err(Refuse::Quota);
        }
        for &pool in pools.iter().filter(|pool| self.pools[**pool].open) {
            let slots = &self.pools[pool].slots;
            let free = |first: &usize| {
                slots.get(*first..first + count).is_some_and(|run| run.iter().all(|id| *id == 0))
            };
            let Some(first) = places(&self.pools[pool]).find(free) else { continue };
            self.charge(device, count);
            let (id, allocated) = (self.next_hold, allocation.is_some());
            self.next_hold += 1;
            self.pools[pool].slots[first..first + count].fill(id);
            self.holds.insert(id, Hold { pool, first, count, device, allocated });
            return Ok(id);
        }
        let suits = pools.iter().filter(|pool| places(&self.pools[**pool]).next().is_some());
        let open = { suits }.any(|pool| self.pools[*pool].open);
        Err(if open { Refuse::PoolFull } else { Refuse::PoolClosed })
    }

    /// The same with all room there could be: no slot is taken, no pool closed, no quota used.
    pub(crate) fn emptied(&self) -> Self {
        let mut model = self.clone();
        for pool in &mut model.pools {
            pool.open = true;
            pool.slots.fill(0);
        }
        model.devices.iter_mut().for_each(|device| device.quota = None);
        model
    }

    /// Gives slots back, if they are still held.
    pub(crate) fn free(&mut self, id: usize) {
        let Some(hold) = self.holds.remove(&id) else { return };
        self.pools[hold.pool].slots[hold.first..hold.first + hold.count].fill(0);
        self.discharge(hold.device, hold.count);
    }

    /// Slots, or pages in slots, that a device holds from now on.
    pub(crate) fn charge(&mut self, device: usize, slots: usize) {
        let user = &mut self.devices[device];
        if user.quota.is_some() {
            user.charged += slots;
        }
    }

    pub(crate) fn discharge(&mut self, device: usize, slots: usize) {
        let user = &mut self.devices[device];
        if user.quota.is_some() {
            user.charged -= slots;
        }
    }

    /// Ends all maps of a device; answers how many slots that freed.
    pub(crate) fn revoke(&mut self, device: usize) -> usize {
        let maps = self.holds.iter().filter(|(_, hold)| hold.device == device && !hold.allocated);
        let ids: Vec<(usize, usize)> = maps.map(|(id, hold)| (*id, hold.count)).collect();
        ids.iter().for_each(|(id, _)| self.free(*id));
        ids.iter().map(|(_, count)| count).sum()
    }

    /// Whether a pool is known to lie on another node than a device.
    pub(crate) fn is_far(&self, pool: usize, device: &DeviceModel) -> bool {
        self.pools[pool].node.is_some_and(|node| device.node.is_some_and(|mine| mine != node))
    }

    fn candidates(&self, device: usize, allocation: Option<Context>) -> Vec<usize> {
        let device = &self.devices[device];
        if let Some(pool) = device.restricted {
            return vec![pool];
        }
        let label = if device.accepted { PoolLabel::GuestPrivate } else { PoolLabel::GuestShared };
        let of = |purpose: PoolUse| {
            let mut found = Vec::new();
            for (index, pool) in self.pools.iter().enumerate() {
                let own = self.devices.iter().any(|other| other.restricted == Some(index));
                if pool.label == label && pool.purpose == purpose && !own {
                    found.push(index);
                }
            }
            found.sort_by_key(|index| self.is_far(*index, device));
            found
        };
        let mut pools = match allocation {
            Some(Context::Atomic) => of(PoolUse::Reserve),
            _ => Vec::new(),
        };
        pools.extend(of(PoolUse::All));
        pools
    }
}
