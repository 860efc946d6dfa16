//! An IOMMU with a table of pages: every access of a device behind it goes through an entry, or
//! faults and is written down. It fails on demand, and remembers what it was asked that no driver
//! would forgive.
// UNSAFETY: the trait is unsafe to implement.
#![expect(unsafe_code)]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use coco_dma::addr::DmaAddr;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::iommu::Entry;
use coco_dma::iommu::Fault;
use coco_dma::iommu::FaultReason;
use coco_dma::iommu::Iommu;
use coco_dma::iommu::IommuError;
use coco_dma::state::State;

/// One domain of a simulated IOMMU. Clones are handles of the same one. It is the test's word for
/// what a device reaches: nothing of the layer is asked.
#[derive(Clone, Debug)]
pub struct SimIommu {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    page: u64,
    /// Whether its driver can be asked what the table has.
    answers: bool,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    /// By the address of the page.
    table: BTreeMap<u64, SimEntry>,
    faults: Vec<Fault>,
    mistakes: Vec<IommuMistake>,
    maps: u64,
    unmaps: u64,
    failing_maps: BTreeSet<u64>,
    failing_unmaps: BTreeSet<u64>,
    claiming_unmaps: BTreeSet<u64>,
    /// Unmaps that were only claimed, of which nobody was told and whose entries live.
    claimed: Vec<StaleEntries>,
    /// Where maps failed: behind it a run has nothing.
    refused: BTreeSet<u64>,
}

/// One page of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimEntry {
    /// Where devices see it.
    pub iova: DmaAddr,
    /// What they see.
    pub phys: PhysAddr,
    /// As what, and with which rights.
    pub entry: Entry,
}

/// Entries that their driver called unmapped, and that live on unknown to everybody else: against
/// condition 4 of [`Iommu`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleEntries {
    /// The first address.
    pub iova: DmaAddr,
    /// Bytes.
    pub len: u64,
}

impl fmt::Display for StaleEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { iova, len } = self;
        write!(f, "{len:#x} bytes at {iova} were said to be unmapped, and devices reach them still")
    }
}

impl StaleEntries {
    fn has(self, page: u64) -> bool {
        page.checked_sub(self.iova.raw()).is_some_and(|offset| offset < self.len)
    }
}

/// Something that the contract of [`Iommu`] forbids its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IommuMistake {
    /// A map or unmap of something else than whole pages.
    NotPages {
        /// The first address.
        iova: DmaAddr,
        /// Bytes.
        len: u64,
    },
    /// A page was mapped twice.
    Mapped {
        /// The page.
        iova: DmaAddr,
    },
    /// A page was unmapped that was not mapped, and does not lie behind what a map that failed left
    /// of a run.
    NotMapped {
        /// The page.
        iova: DmaAddr,
    },
}

/// The code of failures by script.
const BY_SCRIPT: u64 = 0x5c21;
/// The code of mistakes.
const MISTAKE: u64 = 0xbad;

impl SimIommu {
    /// An empty table of pages of `page` bytes, a power of two.
    pub fn new(page: u64) -> Self {
        Self { inner: Arc::new(Inner { page, answers: true, live: Mutex::default() }) }
    }

    /// The same with a driver that cannot be asked what the table has.
    pub fn without_query(page: u64) -> Self {
        Self { inner: Arc::new(Inner { page, answers: false, live: Mutex::default() }) }
    }

    /// The page in bytes.
    pub fn page_size(&self) -> u64 {
        self.inner.page
    }

    /// Every page that is mapped now, lowest first.
    pub fn entries(&self) -> Vec<SimEntry> {
        self.live().table.values().copied().collect()
    }

    /// Every access that was refused.
    pub fn faults(&self) -> Vec<Fault> {
        self.live().faults.clone()
    }

    /// What the layer did that the contract forbids.
    pub fn mistakes(&self) -> Vec<IommuMistake> {
        self.live().mistakes.clone()
    }

    /// The map after `more` others fails, with nothing changed.
    pub fn fail_map(&self, more: u64) {
        let mut live = self.live();
        let call = live.maps + more;
        live.failing_maps.insert(call);
    }

    /// The unmap after `more` others fails, with everything still mapped.
    pub fn fail_unmap(&self, more: u64) {
        let mut live = self.live();
        let call = live.unmaps + more;
        live.failing_unmaps.insert(call);
    }

    /// The unmap after `more` others answers well, and takes nothing out of the table.
    pub fn claim_unmap(&self, more: u64) {
        let mut live = self.live();
        let call = live.unmaps + more;
        live.claiming_unmaps.insert(call);
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        let mut live = self.live();
        live.failing_maps.clear();
        live.failing_unmaps.clear();
        live.claiming_unmaps.clear();
    }

    /// What was only claimed to be unmapped, unknown to whoever was told so.
    pub fn stale(&self) -> Vec<StaleEntries> {
        self.live().claimed.clone()
    }

    /// The memory that an access of a device means; `None`, and a fault, where no entry allows it.
    pub(crate) fn translate(&self, source: u32, at: u64, write: bool) -> Option<(u64, State)> {
        let mut live = self.live();
        let offset = at & (self.inner.page - 1);
        let found = live.table.get(&(at - offset)).copied();
        let allowed =
            found.filter(|found| if write { found.entry.writes } else { found.entry.reads });
        if allowed.is_none() {
            let code = if write { 5 } else { 6 };
            let (addr, reason) = (DmaAddr::new(at), FaultReason::Mapping);
            live.faults.push(Fault { source, addr, write: Some(write), reason, code });
        }
        allowed.map(|found| (found.phys.raw() + offset, found.entry.state))
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // A test that failed in another thread has left nothing half done here.
        self.inner.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pages of a run of addresses; none, and a mistake, where it is not made of whole ones.
    fn pages(&self, live: &mut Live, iova: DmaAddr, len: u64) -> Vec<u64> {
        let page = self.inner.page;
        let whole = (iova.raw() | len).is_multiple_of(page);
        let last = len.checked_sub(1).and_then(|rest| iova.raw().checked_add(rest));
        let end = last.filter(|_| whole);
        if end.is_none() {
            live.mistakes.push(IommuMistake::NotPages { iova, len });
        }
        (0..end.map_or(0, |_| len / page)).map(|index| iova.raw() + index * page).collect()
    }
}

// SAFETY: 1. the page is set once (a test that sets it to something else sees the domain refuse
// it). 2. to 5. are what the table does, under one lock; there are no caches.
unsafe impl Iommu for SimIommu {
    fn page(&self) -> u64 {
        self.inner.page
    }

    unsafe fn map(&self, iova: DmaAddr, run: PhysRange, entry: Entry) -> Result<(), IommuError> {
        let mut live = self.live();
        let call = live.maps;
        live.maps += 1;
        if live.failing_maps.remove(&call) {
            live.refused.insert(iova.raw());
            return Err(IommuError { code: BY_SCRIPT });
        }
        let pages = self.pages(&mut live, iova, run.len());
        if let Some(page) = pages.iter().find(|page| live.table.contains_key(page)) {
            let iova = DmaAddr::new(*page);
            // Whoever was told that it is free is not to blame.
            if !live.claimed.iter().any(|stale| stale.has(*page)) {
                live.mistakes.push(IommuMistake::Mapped { iova });
            }
            return Err(IommuError { code: MISTAKE });
        }
        if pages.is_empty() || !run.is_aligned(self.inner.page) {
            live.mistakes.push(IommuMistake::NotPages { iova, len: run.len() });
            return Err(IommuError { code: MISTAKE });
        }
        for page in pages {
            live.refused.remove(&page);
            let phys = PhysAddr::new(run.base().raw() + (page - iova.raw()));
            live.table.insert(page, SimEntry { iova: DmaAddr::new(page), phys, entry });
        }
        Ok(())
    }

    unsafe fn unmap(&self, iova: DmaAddr, len: u64) -> Result<(), IommuError> {
        let mut live = self.live();
        let call = live.unmaps;
        live.unmaps += 1;
        if live.failing_unmaps.remove(&call) {
            return Err(IommuError { code: BY_SCRIPT });
        }
        if live.claiming_unmaps.remove(&call) {
            live.claimed.push(StaleEntries { iova, len });
            return Ok(());
        }
        let mut behind = false;
        for page in self.pages(&mut live, iova, len) {
            behind |= live.refused.remove(&page);
            if live.table.remove(&page).is_some() == behind {
                let iova = DmaAddr::new(page);
                live.mistakes.push(IommuMistake::NotMapped { iova });
            }
        }
        Ok(())
    }

    fn query(&self, iova: DmaAddr, len: u64) -> Option<bool> {
        let mut live = self.live();
        let asked = StaleEntries { iova, len };
        if self.inner.answers {
            // Whoever asks knows.
            live.claimed.retain(|stale| !asked.has(stale.iova.raw()));
        }
        self.inner.answers.then(|| live.table.keys().any(|page| asked.has(*page)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coco_dma::state::Direction;

    const PAGE: u64 = 4096;

    #[test]
    fn only_behind_a_map_that_failed_may_a_run_have_nothing() {
        for (failed, len, wrong) in
            [(false, 2, None), (false, 3, Some(2)), (true, 3, None), (true, 4, Some(3))]
        {
            let iommu = SimIommu::new(PAGE);
            let entry = Entry::new(Direction::Both, State::SHARED);
            let iova = |page: u64| DmaAddr::new((16 + page) * PAGE);
            let run = |len| PhysRange::new(PhysAddr::new(PAGE), len * PAGE).unwrap();
            // SAFETY: no memory, and no device.
            unsafe { iommu.map(iova(0), run(2), entry) }.unwrap();
            if failed {
                iommu.fail_map(0);
                // SAFETY: as above.
                unsafe { iommu.map(iova(2), run(1), entry) }.unwrap_err();
                // SAFETY: as above.
                unsafe { iommu.map(iova(3), run(1), entry) }.unwrap();
            }
            // SAFETY: as above.
            unsafe { iommu.unmap(iova(0), len * PAGE) }.unwrap();
            let wrong = wrong.map(|page| IommuMistake::NotMapped { iova: iova(page) });
            assert_eq!(iommu.mistakes(), Vec::from_iter(wrong));
        }
    }
}
