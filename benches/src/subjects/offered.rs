//! What the core offers, as subjects: the one file to change when it offers more.
// UNSAFETY: a pool is adopted over memory that the harness answers for.
#![expect(unsafe_code)]

use std::io;

use coco_dma::Dma;
use coco_dma::Word;
use coco_dma::addr::AlignMask;
use coco_dma::device::Endpoint;
use coco_dma::ledger::Initial;
use coco_dma::ledger::Ledger;
use coco_dma::ledger::Tracked;
use coco_dma::plan::Limits;
use coco_dma::pool::Cache;
use coco_dma::pool::Pool;
use coco_dma::state::PoolLabel;

use super::pool::Claimed;
use super::pool::Common;
use super::pool::Shared;
use super::whole::Guest;
use super::whole::Whole;
use super::whole::WholeClaimed;
use crate::hand::Handle;
use crate::hand::Subject;
use crate::hand::Way;
use crate::memory::Buffers;
use crate::memory::Region;
use crate::terms::Rules;
use crate::terms::Terms;

/// The ways through the core that can be measured.
pub const OFFERED: &[(Way, Handle)] = &[
    (Way::Pool, Handle::Exclusive),
    (Way::Pool, Handle::Shared),
    (Way::Whole, Handle::Exclusive),
    (Way::Whole, Handle::Shared),
];
/// Processors whose caches a pool has: as many as threads that map.
const CPUS: usize = 2;

/// What is done with a subject: a generic closure, as subjects have types of their own.
pub trait Visit {
    /// What it comes to.
    type Out;

    /// Does it.
    fn visit<S: Subject>(self, subject: &S) -> Self::Out;
}

/// Whether a way can be measured on these terms: the whole way always copies, by our rules.
pub(crate) fn suits(way: Way, terms: &Terms) -> bool {
    let ours = Terms { rules: Rules::Ours, ..*terms };
    way == Way::Pool || (terms.sync && terms.at_map() == ours.at_map())
}

/// Makes one of [`OFFERED`] over a region and visits it: a confidential guest with one shared pool
/// and an untrusted device, whose buffers are private and in the ledger.
pub fn with<V: Visit>(
    (way, handle): (Way, Handle),
    region: &Region,
    buffers: &Buffers,
    terms: Terms,
    visit: V,
) -> io::Result<V::Out> {
    let wrong = |what: &dyn core::fmt::Display| io::Error::other(what.to_string());
    let guest = Guest::new(region, buffers).ok_or_else(|| wrong(&"the guest has no regime"))?;
    let words: Vec<Word> = storage(Pool::words(region.len() as u64));
    let view = region.start();
    // SAFETY: 1. the region is readable and writable while it is borrowed. 2. The label is what
    // the bench plays. 3. Hands and the harness's devices alone use it, with what they hold.
    // 4. There is no device but the harness's threads, which end before this function does.
    let pool = unsafe { Pool::adopt(PoolLabel::GuestShared, guest.pool(), view, &words) };
    let caches = [const { Cache::new() }; CPUS];
    let pools = [pool.map_err(|error| wrong(&error))?.with_caches(&caches)];
    let [pool] = &pools;
    let metadata = storage(Tracked::words(guest.ram().len(), Guest::GRANULE));
    let ram = Tracked::new(guest.ram(), Guest::GRANULE, Initial::Private, &metadata);
    let ranges = [ram.map_err(|error| wrong(&error))?];
    let ledger = Ledger::new(&ranges).map_err(|error| wrong(&error))?;
    let dma = Dma::new(&guest, &pools).with_ledger(ledger);
    let min_align = AlignMask::new(terms.min_align_mask as u64)
        .ok_or_else(|| wrong(&"a mask of low bits is one less than a power of two"))?;
    let limits = Limits { min_align, ..Limits::NONE };
    let device = dma.bind(Endpoint::new("bench"), limits).map_err(|error| wrong(&error))?;
    let common = Common { pool, region, terms, keep: min_align };
    Ok(match (way, handle) {
        (Way::Pool, Handle::Exclusive) => visit.visit(&Claimed(common)),
        (Way::Pool, Handle::Shared) => visit.visit(&Shared(common)),
        (Way::Whole, Handle::Exclusive) => {
            visit.visit(&WholeClaimed(Whole::new(&device, pool, terms.direction)))
        }
        (Way::Whole, Handle::Shared) => visit.visit(&Whole::new(&device, pool, terms.direction)),
    })
}

fn storage(words: usize) -> Vec<Word> {
    (0..words).map(|_| Word::new()).collect()
}
