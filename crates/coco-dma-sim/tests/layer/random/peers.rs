//! Calls that name another device's memory: in a guest nobody is given it, and nobody converts it.

use coco_dma::attrs::Attrs;
use coco_dma::reason::Refuse;
use coco_dma::state::Direction;
use coco_dma::state::State;

use super::build::GRANULES;
use super::build::PEERS;
use super::call::Place;
use super::world::World;
use crate::support::map;
use crate::support::part_of;
use crate::support::reclaim;
use crate::support::share;

impl World<'_> {
    /// A map of bytes of which some at least are the peer's, or a conversion of them.
    pub(super) fn peer(&mut self, device: usize, place: Place, direction: Direction, attrs: u8) {
        let granule = usize::try_from(self.model.granule).unwrap();
        let len = usize::try_from(place.len).unwrap().min(PEERS * granule);
        // It begins in the granule before at the earliest, and reaches behind that.
        let first = granule.saturating_sub(len - 1);
        let last = (PEERS + 1) * granule - len;
        let at = first + usize::try_from(place.at).unwrap() % (last - first + 1);
        let attrs = match attrs {
            0 => Attrs::NONE,
            1 => Attrs::CC_SHARED,
            2 => Attrs::MMIO,
            3 => Attrs::MMIO.with(Attrs::CC_SHARED),
            _ => return self.convert_peer(),
        };
        let wanted = match self.model.devices[device].stopped {
            Some(reason) => reason,
            // Whatever the caller asserts.
            None => Refuse::PeerToPeer,
        };
        let bytes = part_of(self.by_peers, at, len);
        let refused = map(&self.devices[device], bytes, direction, attrs).unwrap_err();
        assert_eq!(refused.reason, wanted, "{}", self.now);
        self.model.refused(device);
        self.met(if at < granule { "a part of a peer's memory" } else { wanted.slug() });
    }

    fn convert_peer(&mut self) {
        let (asked, peers) = (self.host.converts(), self.part(GRANULES - PEERS..GRANULES));
        assert!(share(self.dma, peers).is_err(), "{}", self.now);
        assert!(reclaim(self.dma, peers).is_err(), "{}", self.now);
        assert_eq!(self.host.converts(), asked, "{}", self.now);
        self.met("a peer's memory is not converted");
    }

    /// It is what it was, and as full of secrets.
    pub(super) fn check_peers(&self) {
        let peers = self.part(GRANULES - PEERS..GRANULES);
        assert!(self.machine.all_in(peers, State::PRIVATE), "{}", self.now);
        let mut bytes = vec![0; usize::try_from(peers.len()).unwrap()];
        self.machine.guest_read(peers.base(), &mut bytes);
        let secret = self.secret.iter().copied().cycle();
        assert!(bytes.iter().copied().eq(secret.take(bytes.len())), "{}", self.now);
    }
}
