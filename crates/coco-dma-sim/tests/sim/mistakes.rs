//! What a machine does not forgive is written down.

use coco_dma::regime::PlatformName;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;
use coco_dma_sim::GranuleState;
use coco_dma_sim::NoMemory;
use coco_dma_sim::Outcome;
use coco_dma_sim::Violation;
use coco_dma_sim::code;

use crate::support::GRANULE;
use crate::support::machine;
use crate::support::map_cpu;
use crate::support::reclaim;
use crate::support::share;
use crate::support::unmap_cpu;

#[test]
fn a_view_in_the_wrong_state() {
    let machine = machine(PlatformName::Cca);
    let run = machine.take(3 * GRANULE).unwrap();
    let start = map_cpu(&machine, run, State::PRIVATE).unwrap();
    assert_eq!(machine.open_views(), 1);
    unmap_cpu(&machine, start, run);
    assert_eq!((machine.open_views(), machine.counts().views), (0, 1));
    let second = run.slice(GRANULE, GRANULE).unwrap();
    share(&machine, second).unwrap();
    assert_eq!(machine.violations(), []);

    assert!(map_cpu(&machine, run, State::PRIVATE).is_err());
    assert!(map_cpu(&machine, second.slice(9, 9).unwrap(), State::PRIVATE).is_err());
    let part = second.slice(100, 200).unwrap();
    let inner = map_cpu(&machine, part, State::SHARED).unwrap();
    assert_eq!(inner.start.addr().get() % 4096, 100);
    unmap_cpu(&machine, inner, run);
    let found = Some(GranuleState::In(State::SHARED));
    let wrong = |run, at| Violation::WrongView { run, asked: State::PRIVATE, at, found };
    assert_eq!(
        machine.violations(),
        [
            wrong(run, second.base()),
            wrong(second.slice(9, 9).unwrap(), second.slice(9, 9).unwrap().base()),
            Violation::UnknownView { run },
        ]
    );
    assert_eq!(machine.open_views(), 1);
}

#[test]
fn a_conversion_under_a_view_or_in_atomic_context() {
    let machine = machine(PlatformName::Pkvm);
    let run = machine.take(2 * GRANULE).unwrap();
    let seen = run.slice(GRANULE, 10).unwrap();
    let start = map_cpu(&machine, seen, State::PRIVATE).unwrap();
    share(&machine, run.slice(0, GRANULE).unwrap()).unwrap();
    assert_eq!(machine.violations(), []);
    share(&machine, run).unwrap();
    unmap_cpu(&machine, start, seen);
    machine.atomic(|| reclaim(&machine, run)).unwrap();
    share(&machine, run).unwrap();
    assert_eq!(
        machine.violations(),
        [Violation::ConvertedUnderView { run, view: seen }, Violation::ConvertedInAtomic { run },]
    );
    assert!(!machine.violations().iter().any(|violation| violation.to_string().is_empty()));
}

#[test]
fn a_conversion_of_what_does_not_convert() {
    let guest = machine(PlatformName::Tdx);
    let run = guest.take(2 * GRANULE).unwrap();
    for wrong in [run.slice(1, GRANULE), run.slice(0, GRANULE + 1)] {
        let error = share(&guest, wrong.unwrap()).unwrap_err();
        assert_eq!((error.done, error.doubt, error.code), (0, 0, code::NOT_GRANULES));
    }
    assert_eq!(guest.violations().len(), 2);
    assert_eq!(guest.counts().converted, 0);
    for platform in [PlatformName::Open, PlatformName::Sme] {
        let host = machine(platform);
        let run = host.take(GRANULE).unwrap();
        assert_eq!(share(&host, run).unwrap_err().code, code::NOTHING_CONVERTS);
        assert_eq!(host.violations(), [Violation::NothingConverts { run }]);
        let missing = host.adopt_pool(PoolLabel::GuestShared, GRANULE);
        assert_eq!(missing.err(), Some(NoMemory::NoSuchLabel(PoolLabel::GuestShared)));
    }
}

#[test]
fn memory_freed_while_shared_or_twice() {
    let machine = machine(PlatformName::Snp);
    let buffer = machine.alloc(2 * 4096).unwrap();
    let run = buffer.run();
    let second = run.slice(GRANULE, GRANULE).unwrap();
    share(&machine, second).unwrap();
    drop(buffer);
    let found = Some(GranuleState::In(State::SHARED));
    let freed = Violation::FreedConverted { run, at: second.base(), found };
    assert_eq!(machine.violations(), [freed]);
    assert_eq!(machine.take(2 * GRANULE).unwrap().base(), run.last().checked_add(1).unwrap());
    reclaim(&machine, second).unwrap();
    machine.free(run);
    assert_eq!(machine.violations(), [freed, Violation::FreedUntaken { run }]);
    assert_eq!(machine.take_at(run), Ok(run));
    assert_eq!(machine.take_at(second), Err(NoMemory::NotFree { run: second }));
}

#[test]
fn a_page_that_the_host_destroyed_has_no_view_until_it_is_converted() {
    let machine = machine(PlatformName::S390);
    let run = machine.take(GRANULE).unwrap();
    assert_eq!(machine.host_write(run.base(), &[0]), Outcome::Lost);
    assert!(map_cpu(&machine, run, State::PRIVATE).is_err());
    share(&machine, run).unwrap();
    reclaim(&machine, run).unwrap();
    assert!(map_cpu(&machine, run, State::PRIVATE).is_ok());
    assert_eq!(machine.violations(), [], "the host's doing is not the layer's");
}
