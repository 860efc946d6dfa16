//! What is known of memory when a device is to map it: what `plan` is asked, and the quick answer.

use super::DefaultPool;
use super::Device;
use super::TableEntry;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::ledger::RangeState;
use crate::observe::Form;
use crate::plan::MapRequest;
use crate::plan::Place;
use crate::plan::state_of;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::state::Direction;
use crate::state::Memory;

impl<'d, P: Platform + ?Sized> Device<'d, P> {
    /// What `plan` is asked for a map of this memory by this device: for showing a decision, or
    /// for thinking one through, without doing anything. Any context.
    pub fn request(
        &self,
        range: Option<PhysRange>,
        len: u64,
        direction: Direction,
        attrs: Attrs,
    ) -> MapRequest<'_> {
        MapRequest {
            regime: self.dma.regime(),
            device: &self.info,
            place: range.map_or(Place::Unlocated, |range| Place::At(range.base())),
            len,
            memory: self.memory(range.map(|range| self.shown(range))),
            direction,
            attrs,
            align: self.iommu_page(),
            pools: self.pool_infos(),
        }
    }

    /// What is known about memory: a pool's label says what lies in it, the ledger what is in its
    /// books, and of the rest nobody keeps the state.
    pub(crate) fn memory(&self, range: Option<PhysRange>) -> Memory {
        let Some(range) = range else { return Memory::Untracked };
        if self.dma.is_peers(range) {
            return Memory::Peer;
        }
        for pool in self.open_pools() {
            if pool.range().contains(range) {
                return match state_of(self.dma.regime(), pool.label()) {
                    Some(state) => Memory::Known(state),
                    None => Memory::Untracked,
                };
            }
            if pool.range().overlaps(range) {
                return Memory::Mixed;
            }
        }
        self.dma.ledger().peek(range).memory()
    }

    /// Whether memory lies in a pool, which no conversion touches while it is in use.
    pub(crate) fn in_pool(&self, range: PhysRange) -> bool {
        self.open_pools().any(|pool| pool.range().contains(range))
    }

    /// Its pools that are open. A closed one's memory is its owner's, and not what the label says.
    fn open_pools(&self) -> impl Iterator<Item = &'d Pool<'d>> {
        self.pools.iter().copied().flatten().filter(|pool| pool.is_open())
    }

    /// The verdict about every map without attributes of `len` bytes of the kind of memory that
    /// this is, where there is one; else the whole way has to be taken.
    #[inline(always)]
    pub(crate) fn table_entry(&self, range: Option<PhysRange>, len: usize) -> Option<&TableEntry> {
        let seen = match range {
            None => RangeState::Untracked,
            Some(range) => match self.table.look(range) {
                Some(state) => RangeState::Uniform(state),
                None => self.state_outside_pools(range)?,
            },
        };
        self.table.about(seen).filter(|entry| entry.holds_for(len))
    }

    /// What the ledger says of memory that lies in no pool and is no peer's.
    #[inline(never)]
    fn state_outside_pools(&self, range: PhysRange) -> Option<RangeState> {
        let in_doubt = !self.table.covers(range) || self.dma.is_peers(range);
        (!in_doubt).then(|| self.dma.ledger().peek(range))
    }

    /// Where the bytes in slots of the pool with this index are, as events tell it.
    pub(crate) fn form(&self, pool: usize) -> Form {
        self.pool_infos().get(pool).map_or(Form::Direct, |pool| Form::Pool(pool.label))
    }

    /// The pool that [verdicts](Self::verdict) are about.
    #[inline]
    pub(crate) fn default_pool(&self) -> Option<&DefaultPool<'d>> {
        self.table.default_pool()
    }
}
