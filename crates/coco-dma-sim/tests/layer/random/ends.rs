//! Calls that end devices, and the end of everything.

use coco_dma::plan::Limits;
use coco_dma::reason::Refuse;

use super::build::endpoint;
use super::world::World;
use crate::support::revoke;

impl World<'_> {
    pub(super) fn revoke(&mut self, device: usize) {
        let freed = revoke(&self.devices[device]);
        assert_eq!(freed, self.model.revoke(device), "{}", self.now);
        // They went to the bitmap, whatever the CPU keeps.
        self.empty_caches();
        self.met(if freed > 0 { "revoked maps" } else { "revoked" });
        self.model.devices[device].stopped = Some(Refuse::Revoked);
    }

    pub(super) fn lose_trust(&mut self, device: usize) {
        self.devices[device].lose_trust().unwrap();
        self.model.devices[device].stopped.get_or_insert(Refuse::TrustLost);
    }

    pub(super) fn rebind(&mut self, device: usize) {
        let model = &mut self.model.devices[device];
        let used = self.model.holds.values().any(|hold| hold.device == device);
        let idle = model.counters.live() == 0 && model.counters.allocations() == 0 && !used;
        let taken = self.devices.swap_remove(device);
        let again = match taken.rebind(endpoint(model, self.own), Limits::NONE) {
            Ok(bound) => {
                assert!(idle, "{}", self.now);
                (model.counters, model.stopped) = (Default::default(), None);
                bound
            }
            Err((same, _)) => {
                assert!(!idle, "{}", self.now);
                same
            }
        };
        self.met(if idle { "rebound" } else { "not rebound" });
        self.devices.push(again);
        let last = self.devices.len() - 1;
        self.devices.swap(device, last);
    }

    /// Everything ends, and everything comes back.
    pub(crate) fn end(&mut self) {
        self.now = format!("{}, the end", self.machine.name());
        self.host.heal();
        while !self.maps.is_empty() {
            self.finish(0, 0);
        }
        while !self.memories.is_empty() {
            self.free(0);
        }
        (2..5).for_each(|pool| self.shrink(pool));
        (2..5)
            .filter(|pool| !self.model.pools[*pool].open)
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|pool| self.fetch_rest(self.model.pools[pool].granules.clone()));
        self.retry(usize::MAX);
        self.check();
        assert_eq!(self.arena.taken(), 0, "{}", self.now);
        let lost: usize = self.model.devices.iter().map(|device| device.counters.lost).sum();
        let held = !self.model.holds.is_empty();
        assert!(!held || lost > 0, "{}", self.now);
        if !self.wild {
            assert_eq!(self.model.in_quarantine(), 0, "{}", self.now);
        }
    }
}
