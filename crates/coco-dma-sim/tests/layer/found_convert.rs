//! Conversions that went wrong once: answers that make no sense, memory lost without a trace or
//! given twice, memory that somebody uses.

use std::sync::mpsc;
use std::thread;

use coco_dma::Dma;
use coco_dma::device::Endpoint;
use coco_dma::ledger::GranuleState;
use coco_dma::ledger::Ledger;
use coco_dma::ledger::RangeState;
use coco_dma::observe::Event;
use coco_dma::observe::Observer;
use coco_dma::plan::Limits;
use coco_dma::platform::ConvertError;
use coco_dma::platform::ConvertVerdict;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;
use coco_dma::state::Visibility;
use coco_dma_sim::ConvertFault;
use coco_dma_sim::Faulty;
use coco_dma_sim::Machine;
use coco_dma_sim::Really;
use coco_dma_sim::Refusal;

use crate::support::Arena;
use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::GUESTS;
use crate::support::SIZE;
use crate::support::adopt;
use crate::support::alloc;
use crate::support::convertible;
use crate::support::free;
use crate::support::machine;
use crate::support::metadata;
use crate::support::metadata_words;
use crate::support::reclaim;
use crate::support::run;
use crate::support::share;
use crate::support::vouch;
use crate::support::words;

/// What a host may say instead of whole granules, of a run of three.
const ODD: [(u64, u64); 6] = [
    (GRANULE + 1, GRANULE),
    (GRANULE / 2, 0),
    (0, 1),
    (GRANULE - 1, 2),
    (2 * GRANULE + 7, GRANULE - 7),
    (u64::MAX, 2),
];

#[test]
fn an_answer_in_parts_of_granules_never_reaches_the_platform_again() {
    for (done, doubt) in ODD {
        let machine = machine(PlatformName::Snp);
        let faulty = Faulty::new(machine.clone());
        let storage = metadata_words(GRANULE);
        let metadata = metadata(GRANULE, &storage);
        let dma = Dma::new(&faulty, &[]).with_ledger(Ledger::new(&metadata).unwrap());
        let mine = machine.take(3 * GRANULE).unwrap();
        let says = Err(ConvertError { done, doubt, code: 9, verdict: ConvertVerdict::Retry });
        faulty.fail_convert(0, ConvertFault { says, really: Really::DoneAndDoubt });
        let failed = share(&dma, mine).unwrap_err();
        assert_eq!(failed.unchanged() + failed.quarantined, mine.len());
        assert_eq!(failed.quarantined % GRANULE, 0);
        assert_eq!(dma.ledger().quarantined(), failed.quarantined);
        assert_eq!(machine.violations(), [], "share, {done:#x} done, {doubt:#x} in doubt");

        // In a retry, and in a reclaim.
        dma.retry_quarantine(9, |_| ());
        assert_eq!(dma.ledger().quarantined(), 0);
        share(&dma, mine).unwrap();
        faulty.fail_convert(0, ConvertFault { says, really: Really::DoneAndDoubt });
        let failed = reclaim(&dma, mine).unwrap_err();
        assert_eq!((failed.converted % GRANULE, failed.quarantined % GRANULE), (0, 0));
        faulty.fail_convert(0, ConvertFault { says, really: Really::DoneAndDoubt });
        dma.retry_quarantine(1, |_| ());
        assert_eq!(machine.violations(), [], "reclaim, {done:#x} done, {doubt:#x} in doubt");
    }
}

#[test]
fn books_with_smaller_granules_than_the_machine_convert_no_part_of_one() {
    let numbers = Parameters { granule: Some(4 * GRANULE), ..Parameters::default() };
    let builder = Machine::builder(PlatformName::Cca).numbers(numbers).ram(BASE, SIZE);
    let machine = builder.build().unwrap();
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let dma = Dma::new(&machine, &[]).with_ledger(Ledger::new(&metadata).unwrap());
    let mine = machine.take(4 * GRANULE).unwrap();
    let part = mine.slice(0, GRANULE).unwrap();
    assert!(share(&dma, part).is_err());
    assert_eq!(machine.violations(), []);
    assert_eq!(dma.ledger().peek(mine), RangeState::Uniform(GranuleState::Private));
    share(&dma, mine).unwrap();
    assert!(reclaim(&dma, part).is_err());
    reclaim(&dma, mine).unwrap();
    assert_eq!(machine.violations(), []);
}

#[test]
fn coherent_pages_that_do_not_come_back_are_in_quarantine_and_nowhere_else() {
    for refusal in [Refusal::Unchanged, Refusal::InDoubt] {
        let machine = machine(PlatformName::Tdx);
        let faulty = Faulty::new(machine.clone());
        let arena = Arena::new(&machine, 8 * GRANULE);
        let storage = metadata_words(GRANULE);
        let metadata = metadata(GRANULE, &storage);
        let ledger = Ledger::new(&metadata).unwrap();
        let dma = Dma::new(&faulty, &[]).with_ledger(ledger).with_pages(&arena);
        let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        let memory = alloc(&device, 5000, Context::Blocking).unwrap();
        faulty.refuse(Visibility::Private, refusal);
        free(&device, memory);
        assert_eq!(ledger.quarantined(), 2 * GRANULE, "{refusal:?}: counted, so that it is found");
        assert_eq!(arena.taken(), 2);
        faulty.heal();
        let retried = dma.retry_quarantine(4, |run| arena.recovered(run));
        assert_eq!((retried.recovered, retried.held), (2 * GRANULE, 0));
        assert_eq!((arena.taken(), arena.faults()), (0, vec![]));
    }
}

#[test]
fn a_view_that_fails_after_sharing_loses_nothing_either() {
    let machine = machine(PlatformName::Pkvm);
    let faulty = Faulty::new(machine.clone());
    let arena = Arena::new(&machine, 8 * GRANULE);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let ledger = Ledger::new(&metadata).unwrap();
    let dma = Dma::new(&faulty, &[]).with_ledger(ledger).with_pages(&arena);
    let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
    // Two wipes of the share, then the view of the allocation.
    faulty.fail_view(2);
    faulty.refuse(Visibility::Private, Refusal::Unchanged);
    assert!(alloc(&device, 1, Context::Blocking).is_err());
    assert_eq!((ledger.quarantined(), arena.taken()), (GRANULE, 1));
    // A pool likewise.
    let mine = machine.take(2 * GRANULE).unwrap();
    let storage = words(coco_dma::pool::Pool::words(mine.len()));
    let pool = convertible(PoolLabel::GuestShared, mine, &storage);
    faulty.fail_view(2);
    assert!(dma.grow(&pool).is_err());
    assert_eq!(ledger.quarantined(), 3 * GRANULE);
    faulty.heal();
    dma.retry_quarantine(4, |run| arena.recovered(run));
    assert_eq!(arena.taken(), 0);
    dma.grow(&pool).unwrap();
    assert!(machine.all_in(mine, State::SHARED));
    dma.shrink(&pool).unwrap();
    assert_eq!((machine.violations(), machine.open_views()), (vec![], 0));
}

/// Stops whoever converts at the moment when the failure is told, until the other side is done.
struct Pause(mpsc::SyncSender<()>, std::sync::Mutex<mpsc::Receiver<()>>);

impl Observer for Pause {
    fn event(&self, event: &Event<'_>) {
        if let Event::ConversionFailed { .. } = event {
            self.0.send(()).unwrap();
            self.1.lock().unwrap().recv().unwrap();
        }
    }
}

#[test]
fn what_a_retry_recovers_meanwhile_is_not_given_back_a_second_time() {
    for at_free in [false, true] {
        let machine = machine(PlatformName::Snp);
        let faulty = Faulty::new(machine.clone());
        let arena = Arena::new(&machine, 8 * GRANULE);
        let storage = metadata_words(GRANULE);
        let metadata = metadata(GRANULE, &storage);
        let (told, heard) = mpsc::sync_channel(0);
        let (go, wait) = mpsc::sync_channel(0);
        let pause = Pause(told, std::sync::Mutex::new(wait));
        let dma = Dma::new(&faulty, &[])
            .with_ledger(Ledger::new(&metadata).unwrap())
            .with_pages(&arena)
            .with_observer(&pause);
        let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        thread::scope(|scope| {
            let memory = at_free.then(|| alloc(&device, 4096, Context::Blocking).unwrap());
            faulty.fail_convert(0, ConvertFault::stopped(0, GRANULE, 1));
            let device = &device;
            let side = scope.spawn(move || match memory {
                Some(memory) => free(device, memory),
                None => assert!(alloc(device, 4096, Context::Blocking).is_err()),
            });
            heard.recv().unwrap();
            let retried = dma.retry_quarantine(1, |run| arena.recovered(run));
            assert_eq!(retried.recovered, GRANULE);
            go.send(()).unwrap();
            side.join().unwrap();
        });
        assert_eq!(arena.faults(), Vec::<String>::new(), "free: {at_free}");
        assert_eq!(arena.taken(), 0);
    }
}

#[test]
fn memory_that_a_pool_or_an_allocation_uses_is_not_converted() {
    for platform in GUESTS {
        let machine = machine(platform);
        let arena = Arena::new(&machine, 8 * GRANULE);
        let storage = metadata_words(GRANULE);
        let metadata = metadata(GRANULE, &storage);
        let ledger = Ledger::new(&metadata).unwrap();
        let came = run(BASE + SIZE - 4 * GRANULE, 4 * GRANULE);
        let (came_words, pool_words) = (words(1 << 8), words(1 << 8));
        let pools = [adopt(&machine, PoolLabel::GuestShared, came, &came_words)];
        let dma = Dma::new(&machine, &pools).with_ledger(ledger).with_pages(&arena);
        let grown = machine.take(4 * GRANULE).unwrap();
        let own = convertible(PoolLabel::GuestShared, grown, &pool_words);
        dma.grow(&own).unwrap();
        assert!(reclaim(&dma, grown).is_err(), "{platform}: an open pool");
        assert!(reclaim(&dma, grown.slice(GRANULE, GRANULE).unwrap()).is_err(), "{platform}");
        // The books call it private, since nobody declared it.
        assert!(share(&dma, came).is_err(), "{platform}: an adopted pool");
        ledger.declare(came, Visibility::Shared).unwrap();
        assert!(reclaim(&dma, came).is_err(), "{platform}: an adopted pool");
        assert!(machine.all_in(grown, State::SHARED) && machine.all_in(came, State::SHARED));

        let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        let memory = alloc(&device, 4096, Context::Blocking).unwrap();
        let pages = arena.run().slice(7 * GRANULE, GRANULE).unwrap();
        assert!(machine.all_in(pages, State::SHARED));
        assert!(reclaim(&dma, pages).is_err(), "{platform}: the device has the address");
        free(&device, memory);
        dma.shrink(&own).unwrap();
        share(&dma, grown).unwrap();
        assert_eq!(machine.violations(), []);
        assert_eq!(arena.faults(), Vec::<String>::new());
    }
}

#[test]
fn private_pages_of_an_accepted_device_are_not_shared_under_it() {
    let machine = machine(PlatformName::Cca);
    let arena = Arena::new(&machine, 8 * GRANULE);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let ledger = Ledger::new(&metadata).unwrap();
    let dma = Dma::new(&machine, &[]).with_ledger(ledger).with_pages(&arena);
    let device = dma.bind(Endpoint::new("gpu").accepted(vouch()), Limits::NONE).unwrap();
    let memory = alloc(&device, 4096, Context::Blocking).unwrap();
    let pages = arena.run().slice(7 * GRANULE, GRANULE).unwrap();
    assert!(share(&dma, pages).is_err());
    free(&device, memory);
    share(&dma, pages).unwrap();
}
