//! Memory that was converted under its pool, device numbers that two layers had in common, and
//! memory in quarantine that was never tried.

use coco_dma::Dma;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::convert::ConvertErrorKind;
use coco_dma::device::BindError;
use coco_dma::device::Endpoint;
use coco_dma::ledger::Conflict;
use coco_dma::ledger::Found;
use coco_dma::ledger::Ledger;
use coco_dma::ledger::Tracked;
use coco_dma::plan::Limits;
use coco_dma::pool::Pool;
use coco_dma::regime::PlatformName;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;
use coco_dma::state::Visibility;
use coco_dma_sim::Faulty;
use coco_dma_sim::Refusal;

use crate::stubborn::Stubborn;
use crate::support::GRANULE;
use crate::support::adopt;
use crate::support::finish;
use crate::support::machine;
use crate::support::map;
use crate::support::metadata;
use crate::support::metadata_words;
use crate::support::reclaim;
use crate::support::revoke;
use crate::support::share;
use crate::support::words;

/// `count` granules of a run, each a run.
fn granules(run: PhysRange) -> Vec<PhysRange> {
    (0..run.len() / GRANULE).filter_map(|part| run.slice(part * GRANULE, GRANULE)).collect()
}

/// A round of one try went to the lowest run each time: one that never comes back kept all others
/// in quarantine, and within one run so did its lowest granule.
#[test]
fn memory_that_never_comes_back_keeps_nothing_else_in_quarantine() {
    let machine = machine(PlatformName::Snp);
    let platform = Faulty::new(Stubborn::new(&machine));
    let storage = metadata_words(GRANULE);
    let tracked = metadata(GRANULE, &storage);
    let ledger = Ledger::new(&tracked).unwrap();
    let dma = Dma::new(&platform, &[]).with_ledger(ledger);
    // Two runs: four granules, a gap, and two.
    let mine = machine.take(7 * GRANULE).unwrap();
    let all = granules(mine);
    let lost = [mine.slice(0, 4 * GRANULE).unwrap(), mine.slice(5 * GRANULE, 2 * GRANULE).unwrap()];
    for run in lost {
        share(&dma, run).unwrap();
        platform.refuse(Visibility::Private, Refusal::InDoubt);
        reclaim(&dma, run).unwrap_err();
        platform.heal();
    }
    assert_eq!(ledger.quarantine().collect::<Vec<_>>(), lost);
    platform.inner().stick(&[all[0], all[2]]);
    let mut back = Vec::new();
    // A granule that sticks takes a try, and so does what lies behind it.
    for _ in 0..4 {
        let before = platform.inner().asked();
        dma.retry_quarantine(1, |run| back.push(run));
        assert!(platform.inner().asked() <= before + 1, "a round of one try");
    }
    assert_eq!(back, [all[1], all[3], lost[1]]);
    assert_eq!(ledger.quarantine().collect::<Vec<_>>(), [all[0], all[2]]);
    // Whatever the number of tries, a round asks for nothing twice.
    let before = platform.inner().asked();
    let retried = dma.retry_quarantine(100, |_| panic!("it sticks"));
    assert_eq!((retried.recovered, retried.held), (0, 2 * GRANULE));
    assert_eq!(platform.inner().asked(), before + 2);
    platform.inner().stick(&[]);
    assert_eq!(dma.retry_quarantine(2, |_| ()).held, 0);
    assert!(machine.all_in(mine, State::PRIVATE));
}

/// The machine's pools were protected from conversions, a device's own were not.
#[test]
fn the_memory_of_a_devices_own_pool_is_not_converted_under_it() {
    let machine = machine(PlatformName::Tdx);
    let range = machine.take(4 * GRANULE).unwrap();
    machine.free(range);
    let slots = words(Pool::words(range.len()));
    let pool = adopt(&machine, PoolLabel::GuestShared, range, &slots);
    let storage = metadata_words(GRANULE);
    let tracked = metadata(GRANULE, &storage);
    let converts = Ledger::new(&tracked).unwrap();
    converts.declare(range, Visibility::Shared).unwrap();
    let dma = Dma::new(&machine, &[]).with_ledger(converts);
    let own = [&pool];
    let refused = dma.bind(Endpoint::new("nic").pools(&own), Limits::NONE).unwrap_err();
    assert_eq!(refused, BindError::PoolConverts(range));

    let foreign = [Tracked::foreign(range, Visibility::Shared)];
    let dma = Dma::new(&machine, &[]).with_ledger(Ledger::new(&foreign).unwrap());
    let device = dma.bind(Endpoint::new("nic").pools(&own), Limits::NONE).unwrap();
    let buffer = machine.alloc(512).unwrap();
    let mapping = map(&device, buffer.bytes(), Direction::ToDevice, Attrs::NONE).unwrap();
    assert!(mapping.is_bounced());
    let why = reclaim(&dma, range).unwrap_err().why;
    assert!(
        matches!(why, ConvertErrorKind::Ledger(Conflict { found: Found::Foreign(_), .. })),
        "{why:?}"
    );
    assert!(machine.all_in(range, State::SHARED));
    finish(&device, mapping, 0);
}

/// A pool that is the machine's too is protected as one of those.
#[test]
fn a_devices_own_pool_may_be_the_machines() {
    let machine = machine(PlatformName::Snp);
    let range = machine.take(2 * GRANULE).unwrap();
    machine.free(range);
    let slots = words(Pool::words(range.len()));
    let pools = [adopt(&machine, PoolLabel::GuestShared, range, &slots)];
    let storage = metadata_words(GRANULE);
    let tracked = metadata(GRANULE, &storage);
    let ledger = Ledger::new(&tracked).unwrap();
    ledger.declare(range, Visibility::Shared).unwrap();
    let dma = Dma::new(&machine, &pools).with_ledger(ledger);
    let own = [&pools[0]];
    assert!(dma.bind(Endpoint::new("nic").pools(&own), Limits::NONE).is_ok());
    assert_eq!(reclaim(&dma, range).unwrap_err().why, ConvertErrorKind::Pool(range));
}

/// Devices of two layers had the same number, so that revoking one freed the other's slots.
#[test]
fn two_layers_over_one_pool_keep_their_slots_apart() {
    let machine = machine(PlatformName::Tdx);
    let range = machine.take(4 * GRANULE).unwrap();
    machine.free(range);
    let slots = words(Pool::words(range.len()));
    let pool = adopt(&machine, PoolLabel::GuestShared, range, &slots);
    let own = [&pool];
    let (one, two) = (Dma::new(&machine, &[]), Dma::new(&machine, &[]));
    let first = one.bind(Endpoint::new("first").pools(&own), Limits::NONE).unwrap();
    let second = two.bind(Endpoint::new("second").pools(&own), Limits::NONE).unwrap();
    let buffer = machine.alloc(512).unwrap();
    let mapping = map(&first, buffer.bytes(), Direction::ToDevice, Attrs::NONE).unwrap();
    assert_eq!((first.holds(), second.holds()), (1, 0));
    assert_eq!(revoke(&second), 0);
    assert_eq!((first.holds(), pool.used()), (1, 1));
    finish(&first, mapping, 0);
    assert_eq!(pool.used(), 0);
}
