//! Everything that is shared goes back: what the host can still read is looked at on the machine,
//! not asked of the layer.
// UNSAFETY: the walk takes memory from whoever uses it.
#![expect(unsafe_code)]

use coco_dma::Dma;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::convert::Account;
use coco_dma::convert::ConvertErrorKind;
use coco_dma::convert::Walked;
use coco_dma::device::Endpoint;
use coco_dma::ledger::Ledger;
use coco_dma::plan::KeepReason;
use coco_dma::plan::Limits;
use coco_dma::platform::Platform;
use coco_dma::pool::Pool;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;

use crate::stubborn::Stubborn;
use crate::support::Arena;
use crate::support::GRANULE;
use crate::support::GUESTS;
use crate::support::adopt;
use crate::support::alloc;
use crate::support::convertible;
use crate::support::finish;
use crate::support::free;
use crate::support::machine;
use crate::support::map;
use crate::support::metadata;
use crate::support::metadata_words;
use crate::support::share;
use crate::support::words;

fn walk<P: Platform>(dma: &Dma<'_, P>) -> (Vec<Walked>, Account) {
    let mut told = Vec::new();
    // SAFETY: simulated memory, which nobody holds references into, and one thread.
    let account = unsafe { dma.reclaim_all(|walked| told.push(walked)) };
    assert_eq!(account, dma.account());
    (told, account)
}

#[test]
fn the_host_is_left_with_what_it_came_with() {
    for platform in GUESTS {
        let machine = machine(platform);
        let arena = Arena::new(&machine, 4 * GRANULE);
        let [mine, came] = [2, 2].map(|count| machine.take(count * GRANULE).unwrap());
        let heap = machine.take(4 * GRANULE).unwrap();
        machine.free(came);
        let storage = [mine, came].map(|run| words(Pool::words(run.len())));
        let pools = [
            convertible(PoolLabel::GuestShared, mine, &storage[0]),
            adopt(&machine, PoolLabel::GuestShared, came, &storage[1]),
        ];
        let book_storage = metadata_words(GRANULE);
        let tracked = metadata(GRANULE, &book_storage);
        let ledger = Ledger::new(&tracked).unwrap();
        let dma = Dma::new(&machine, &pools).with_ledger(ledger).with_pages(&arena);
        assert_eq!(dma.account(), Account { adopted: came.len(), ..Account::default() });
        dma.grow(&pools[0]).unwrap();
        let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        // A gap, so that there are two runs; and one of them is mapped in part.
        let [low, high] = [0, 3].map(|at| heap.slice(at * GRANULE, GRANULE).unwrap());
        share(&dma, low).unwrap();
        share(&dma, high).unwrap();
        let ring = alloc(&device, 1, Context::Blocking).unwrap();
        let ring_at = machine.locate(ring.bytes()).unwrap();
        let buffer = machine.alloc(512).unwrap();
        let mapping = map(&device, buffer.bytes(), Direction::ToDevice, Attrs::NONE).unwrap();
        assert!(mapping.is_bounced());

        let (told, account) = walk(&dma);
        for step in [
            Walked::Kept(mine, KeepReason::InUse),
            Walked::Kept(came, KeepReason::Adopted),
            Walked::Reclaimed(low),
            Walked::Reclaimed(high),
            Walked::Kept(ring_at, KeepReason::Pinned),
        ] {
            assert!(told.contains(&step), "{platform}: {step:?} of {told:?}");
        }
        assert_eq!(told.len(), 5, "{platform}: {told:?}");
        let left = Account { pinned: GRANULE, in_use: mine.len(), adopted: came.len(), ..account };
        assert_eq!((account, account.is_clean()), (left, false), "{platform}");
        let shared: u64 = machine.shared().iter().map(|run| run.len()).sum();
        assert_eq!(shared, GRANULE + mine.len() + came.len(), "{platform}");

        assert_eq!(share(&dma, low).unwrap_err().why, ConvertErrorKind::Stopped, "{platform}");
        finish(&device, mapping, 0);
        free(&device, ring);
        let (told, account) = walk(&dma);
        assert_eq!(
            told,
            [Walked::Kept(came, KeepReason::Adopted), Walked::Shrunk(mine)],
            "{platform}"
        );
        assert!(account.is_clean(), "{platform}: {account}");
        assert_eq!(machine.shared(), [came], "{platform}: the machine's truth");
        assert!(dma.grow(&pools[0]).is_err(), "{platform}");
        assert!(alloc(&device, 1, Context::Blocking).is_ok_and(|slots| !slots.converts_on_free()));
        dma.allow_sharing();
        dma.grow(&pools[0]).unwrap();
        assert_eq!((arena.faults(), machine.violations().len()), (vec![], 0), "{platform}");
    }
}

/// What the host does not give back is told, keeps nothing else from being taken back, and
/// is taken when the walk comes again.
#[test]
fn a_walk_goes_on_behind_what_fails() {
    let machine = machine(PlatformName::Cca);
    let host = Stubborn::new(&machine);
    let storage = metadata_words(GRANULE);
    let tracked = metadata(GRANULE, &storage);
    let ledger = Ledger::new(&tracked).unwrap();
    let dma = Dma::new(&host, &[]).with_ledger(ledger);
    let heap = machine.take(5 * GRANULE).unwrap();
    share(&dma, heap).unwrap();
    let part = |first: u64, count: u64| heap.slice(first * GRANULE, count * GRANULE).unwrap();
    host.stick(&[part(0, 1), part(3, 1)]);
    let before = host.asked();
    let (told, account) = walk(&dma);
    let failed = |run: PhysRange, converted: u64| {
        told.iter().any(|walked| {
            matches!(walked, Walked::Failed(failed)
                if failed.run == run && failed.converted == converted && failed.quarantined == 0)
        })
    };
    assert!(failed(heap, 0) && failed(part(1, 4), 2 * GRANULE), "{told:?}");
    assert_eq!((told.len(), host.asked() - before), (3, 3), "{told:?}");
    assert_eq!(account, Account { shared: 2 * GRANULE, ..Account::default() });
    assert_eq!(machine.shared(), [part(0, 1), part(3, 1)]);
    // In steps: each asks for one conversion.
    host.stick(&[]);
    let mut walk = dma.walk_back();
    // SAFETY: as for `walk`.
    assert_eq!(unsafe { walk.step() }, Some(Walked::Reclaimed(part(0, 1))));
    assert!(!dma.account().is_clean());
    // SAFETY: as for `walk`.
    assert_eq!(unsafe { walk.step() }, Some(Walked::Reclaimed(part(3, 1))));
    // SAFETY: as for `walk`.
    assert_eq!(unsafe { walk.step() }, None);
    assert!(dma.account().is_clean());
    assert_eq!(machine.shared(), []);
}

#[test]
fn where_nothing_is_shared_nothing_is_asked() {
    for platform in [PlatformName::Open, PlatformName::Sme] {
        let machine = machine(platform);
        let dma = Dma::new(&machine, &[]);
        assert_eq!(walk(&dma), (vec![], Account::default()));
    }
}
