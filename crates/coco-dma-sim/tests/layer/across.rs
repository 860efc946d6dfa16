//! Memory across ranges of the books that stand side by side is shared and reclaimed as one.

use coco_dma::Dma;
use coco_dma::ledger::Initial;
use coco_dma::ledger::Ledger;
use coco_dma::ledger::Tracked;
use coco_dma::regime::PlatformName;
use coco_dma_sim::ConvertFault;
use coco_dma_sim::Faulty;
use coco_dma_sim::Really;

use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::SIZE;
use crate::support::machine;
use crate::support::reclaim;
use crate::support::run;
use crate::support::share;
use crate::support::words;

#[test]
fn a_run_across_the_border_is_converted_and_undone_as_one() {
    let machine = machine(PlatformName::Tdx);
    let half = SIZE / 2;
    let (low, high) = (words(1 << 8), words(1 << 8));
    let ranges = [
        Tracked::new(run(BASE, half), GRANULE, Initial::Private, &low).unwrap(),
        Tracked::new(run(BASE + half, half), GRANULE, Initial::Private, &high).unwrap(),
    ];
    let host = Faulty::new(machine.clone());
    let dma = Dma::new(&host, &[]).with_ledger(Ledger::new(&ranges).unwrap());
    let across = machine.take_at(run(BASE + half - 4 * GRANULE, 8 * GRANULE)).unwrap();
    share(&dma, across).unwrap();
    assert_eq!(machine.shared(), [across]);
    reclaim(&dma, across).unwrap();
    assert_eq!(machine.shared(), []);
    // The second half stops in its middle, with a granule in doubt: the rest is as before.
    host.fail_convert(1, ConvertFault::stopped(GRANULE, GRANULE, 7).really(Really::Done));
    let failed = share(&dma, across).unwrap_err();
    assert_eq!((failed.converted, failed.quarantined), (0, GRANULE));
    assert_eq!(machine.shared(), []);
    let lost = run(BASE + half + GRANULE, GRANULE);
    assert_eq!(dma.ledger().quarantine().collect::<Vec<_>>(), [lost]);
    let mut back = Vec::new();
    dma.retry_quarantine(1, |run| back.push(run));
    assert_eq!(back, [lost]);
    // A reclaim keeps what it has.
    share(&dma, across).unwrap();
    host.fail_convert(1, ConvertFault::stopped(GRANULE, 0, 7));
    let failed = reclaim(&dma, across).unwrap_err();
    assert_eq!((failed.converted, failed.quarantined), (5 * GRANULE, 0));
    let rest = run(BASE + half + GRANULE, 3 * GRANULE);
    assert_eq!(machine.shared(), [rest]);
    reclaim(&dma, rest).unwrap();
    assert_eq!((machine.shared(), machine.violations()), (vec![], vec![]));
}
