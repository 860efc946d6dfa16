//! The limit of pins has a reason of its own: a page that is registered again and again (as RDMA
//! drivers do) is refused for what it is, and whoever finishes one of its maps may map again.

use coco_dma::Dma;
use coco_dma::attrs::Attrs;
use coco_dma::device::Endpoint;
use coco_dma::ledger::Ledger;
use coco_dma::plan::Limits;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Direction;

use crate::support::GRANULE;
use crate::support::finish;
use crate::support::machine;
use crate::support::map;
use crate::support::metadata;
use crate::support::metadata_words;
use crate::support::share;

/// As many pins as a granule counts.
const MOST: usize = 8191;

#[test]
fn one_page_too_often_is_pinned_out_and_works_when_a_map_of_it_ends() {
    let machine = machine(PlatformName::Tdx);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let dma = Dma::new(&machine, &[]).with_ledger(Ledger::new(&metadata).unwrap());
    let efa = dma.bind(Endpoint::new("efa"), Limits::NONE).unwrap();
    let (page, other) = (machine.alloc(4096).unwrap(), machine.alloc(4096).unwrap());
    share(&dma, page.run()).unwrap();
    share(&dma, other.run()).unwrap();
    let again = |bytes| map(&efa, bytes, Direction::Both, Attrs::REQUIRE_COHERENT);
    let mut maps: Vec<_> = (0..MOST).map(|_| again(page.bytes()).unwrap()).collect();
    let refused = again(page.bytes()).unwrap_err();
    assert_eq!(refused.reason, Refuse::PinnedOut);
    assert_eq!(dma.ledger().granule(page.run().base()).unwrap().pins, MOST, "nothing is left over");
    // The way out, both halves: other memory, or one map less.
    maps.push(again(other.bytes()).unwrap());
    finish(&efa, maps.remove(0), 0);
    maps.push(again(page.bytes()).unwrap());
    assert_eq!(again(page.bytes()).unwrap_err().reason, Refuse::PinnedOut);
    maps.into_iter().for_each(|mapping| finish(&efa, mapping, 0));
    assert_eq!(efa.counters().live(), 0);
    assert_eq!(dma.ledger().granule(page.run().base()).unwrap().pins, 0);
}
