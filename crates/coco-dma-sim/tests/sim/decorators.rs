//! Decorators do what they say, alone and around each other.

use coco_dma::Dma;
use coco_dma::addr::PhysRange;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::platform::ConvertError;
use coco_dma::platform::ConvertVerdict;
use coco_dma::platform::Platform;
use coco_dma::regime::PlatformName;
use coco_dma::state::CacheMode;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;
use coco_dma::state::Trust;
use coco_dma::state::Visibility;
use coco_dma_sim::Accounted;
use coco_dma_sim::Adversary;
use coco_dma_sim::Call;
use coco_dma_sim::ConvertFault;
use coco_dma_sim::Faulty;
use coco_dma_sim::Machine;
use coco_dma_sim::Malice;
use coco_dma_sim::Really;
use coco_dma_sim::Refusal;
use coco_dma_sim::SimDevice;
use coco_dma_sim::Traced;
use coco_dma_sim::code;

use crate::support::GRANULE;
use crate::support::finish;
use crate::support::machine;
use crate::support::map;
use crate::support::map_cpu;
use crate::support::pool;
use crate::support::reclaim;
use crate::support::share;
use crate::support::unmap_cpu;

/// Which granules of `run` are shared.
fn shared(machine: &Machine, run: PhysRange) -> Vec<bool> {
    (0..run.len() / GRANULE)
        .map(|number| machine.all_in(run.slice(number * GRANULE, GRANULE).unwrap(), State::SHARED))
        .collect()
}

#[test]
fn a_script_says_one_thing_and_does_another() {
    let said = ConvertFault::stopped(GRANULE, 2 * GRANULE, 77);
    let absurd = ConvertFault::stopped(u64::MAX, u64::MAX, 1);
    let (yes, no) = (true, false);
    for (fault, truth) in [
        (said, [yes, no, no, no]),
        (said.really(Really::DoneAndDoubt), [yes, yes, yes, no]),
        (said.really(Really::Nothing), [no; 4]),
        (said.really(Really::All), [yes; 4]),
        (said.really(Really::First(2)), [yes, yes, no, no]),
        (said.really(Really::Mask(0b101)), [yes, no, yes, no]),
        (ConvertFault::lie(Really::Mask(0b10)), [no, yes, no, no]),
        (ConvertFault::lie(Really::Done), [yes; 4]),
        (absurd.really(Really::DoneAndDoubt), [yes; 4]),
        (ConvertFault::stopped(GRANULE + 1, GRANULE - 1, 1), [yes, no, no, no]),
    ] {
        let machine = machine(PlatformName::Tdx);
        let faulty = Faulty::new(machine.clone());
        let run = machine.take(4 * GRANULE).unwrap();
        faulty.fail_convert(0, fault);
        assert_eq!(share(&faulty, run), fault.says);
        assert_eq!(shared(&machine, run), truth, "{fault:?}");
        assert_eq!((faulty.waiting(), share(&faulty, run)), (0, Ok(())));
        assert_eq!(shared(&machine, run), [true; 4]);
    }
}

#[test]
fn a_script_waits_for_its_turn_and_heals() {
    let machine = machine(PlatformName::Sev);
    let faulty = Faulty::new(machine.clone());
    let run = machine.take(GRANULE).unwrap();
    faulty.fail_convert(1, ConvertFault::stopped(0, 0, 5));
    faulty.fail_convert(2, ConvertFault::stopped(0, GRANULE, 6));
    faulty.fail_view(1);
    assert_eq!(faulty.waiting(), 3);
    share(&faulty, run).unwrap();
    assert_eq!(reclaim(&faulty, run).unwrap_err().code, 5);
    assert_eq!(reclaim(&faulty, run).unwrap_err().code, 6);
    let start = map_cpu(&faulty, run, State::SHARED).unwrap();
    unmap_cpu(&faulty, start, run);
    assert!(map_cpu(&faulty, run, State::SHARED).is_err());
    let start = map_cpu(&faulty, run, State::SHARED).unwrap();
    unmap_cpu(&faulty, start, run);
    assert_eq!((faulty.waiting(), machine.violations()), (0, vec![]));

    faulty.refuse(Visibility::Private, Refusal::Unchanged);
    for _ in 0..100 {
        let none =
            ConvertError { done: 0, doubt: 0, code: code::REFUSED, verdict: ConvertVerdict::Retry };
        assert_eq!(reclaim(&faulty, run), Err(none));
    }
    share(&faulty, run).unwrap();
    faulty.refuse(Visibility::Private, Refusal::InDoubt);
    assert_eq!(reclaim(&faulty, run).unwrap_err().doubt, GRANULE);
    faulty.refuse(Visibility::Shared, Refusal::Unchanged);
    assert!(share(&faulty, run).is_err());
    assert_eq!(faulty.converts(), 106);
    assert_eq!(shared(&machine, run), [true]);
    faulty.fail_view(0);
    faulty.heal();
    reclaim(&faulty, run).unwrap();
    assert!(map_cpu(&faulty, run, State::PRIVATE).is_ok());
}

#[test]
fn a_trace_is_what_was_asked() {
    let machine = machine(PlatformName::Pkvm);
    let traced = Traced::new(Faulty::new(machine.clone()));
    let run = machine.take(GRANULE).unwrap();
    traced.inner().fail_convert(0, ConvertFault::stopped(0, 0, 9));
    let answer = share(&traced, run);
    share(&traced, run).unwrap();
    let start = map_cpu(&traced, run, State::SHARED).unwrap();
    unmap_cpu(&traced, start, run);
    let context = Context::Blocking;
    let (from, to) = (State::PRIVATE, State::SHARED);
    assert_eq!(
        traced.take_calls(),
        [
            Call::Convert { run, from, to, answer },
            Call::Convert { run, from, to, answer: Ok(()) },
            Call::View {
                run,
                state: State::SHARED,
                cache: CacheMode::WriteBack,
                context,
                given: true
            },
            Call::Unview { run },
        ]
    );
    let buffer = machine.alloc(10).unwrap();
    traced.locate(buffer.bytes());
    traced.sync_for_device(buffer.bytes(), Direction::Both, true);
    traced.sync_for_cpu(buffer.bytes(), Direction::ToDevice, false);
    let at = Some(buffer.range());
    assert_eq!(
        traced.calls(),
        [
            Call::Locate { len: 10, found: at },
            Call::HandOver { at, direction: Direction::Both, cache_work: true },
            Call::TakeBack { at, direction: Direction::ToDevice, cache_work: false },
        ]
    );
    assert_eq!((machine.counts().hand_overs, machine.counts().take_backs), (1, 1));
}

#[test]
fn an_account_comes_out_at_zero_or_says_whose_it_is() {
    let machine = machine(PlatformName::Cca);
    let accounted = Accounted::new(Faulty::new(machine.clone()));
    let run = machine.take(4 * GRANULE).unwrap();
    let half = run.slice(0, 2 * GRANULE).unwrap();
    assert!(accounted.account().is_zero());
    accounted.on_behalf("heap", || share(&accounted, run)).unwrap();
    let start = map_cpu(&accounted, run, State::SHARED).unwrap();
    let account = accounted.account();
    assert_eq!(account.shared.into_iter().collect::<Vec<_>>(), [("heap".into(), 4 * GRANULE)]);
    assert_eq!((account.views, account.doubtful.len()), (1, 0));
    unmap_cpu(&accounted, start, run);
    assert_eq!(accounted.account().views, 0);
    accounted.on_behalf("heap", || reclaim(&accounted, half)).unwrap();
    assert_eq!(accounted.account().shared["heap"], 2 * GRANULE);
    assert_eq!(accounted.account().crossings, []);

    // One granule is done, one is in doubt; the other two were private all the time.
    accounted.inner().fail_convert(0, ConvertFault::stopped(GRANULE, GRANULE, 1));
    let other = machine.take(3 * GRANULE).unwrap();
    accounted.on_behalf("ring", || share(&accounted, other)).unwrap_err();
    let account = accounted.account();
    assert_eq!((account.shared["ring"], account.doubtful["ring"]), (GRANULE, GRANULE));
    accounted.on_behalf("ring", || reclaim(&accounted, other)).unwrap();
    assert_eq!(accounted.account().shared.keys().collect::<Vec<_>>(), ["heap"]);

    reclaim(&accounted, run).unwrap();
    let crossings = accounted.account().crossings;
    assert_eq!(crossings.len(), 2);
    assert_eq!((crossings[0].owner.as_str(), crossings[0].by.as_str()), ("heap", ""));
    assert_eq!(crossings[0].granule, run.slice(2 * GRANULE, GRANULE).unwrap());
    assert!(accounted.account().shared.is_empty() && !accounted.account().is_zero());
    assert_eq!(machine.shared(), []);
}

#[test]
fn an_adversary_writes_what_it_can_reach_and_nothing_else() {
    let machine = machine(PlatformName::Sev);
    let memory = machine.adopt_pool(PoolLabel::GuestShared, 1 << 14).unwrap();
    let elsewhere = machine.adopt_pool(PoolLabel::GuestShared, 1 << 14).unwrap();
    machine.fill_private(&[7]);
    let malice = Malice { flips_handed: 3, flips_shared: 40, ..Malice::default() };
    let hostile = Adversary::new(machine.clone(), &machine, malice, 1);
    let words = memory.words();
    let pools = [pool(&memory, &words)];
    let dma = Dma::new(&hostile, &pools);
    let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
    let buffer = machine.alloc(2048).unwrap();
    let mapping = map(&device, &buffer, Direction::ToDevice).unwrap();
    let slots = memory.range.slice(0, 2048).unwrap();
    let mut seen = [0; 2048];
    machine.host_read(slots.base(), &mut seen);
    assert!(seen.iter().any(|byte| *byte != 7), "handed over, and changed");
    finish(&device, mapping, 0);
    assert_eq!(buffer.read(), [7; 2048]);
    let mut other = [0; 1 << 14];
    machine.host_read(elsewhere.range.base(), &mut other);
    assert!(other.iter().any(|byte| *byte != 0));
    hostile.sync_for_device(buffer.bytes(), Direction::Both, false);
    hostile.sync_for_cpu(buffer.bytes(), Direction::Both, false);
    assert_eq!(buffer.read(), [7; 2048], "private memory is out of its reach");
    let mapping = map(&device, &buffer, Direction::FromDevice).unwrap();
    let nic = SimDevice::new(&machine, "nic", Trust::Untrusted);
    nic.write(mapping.addr().raw(), &[9; 2048]);
    finish(&device, mapping, 2048);
    assert_ne!(buffer.read(), [9; 2048], "taken back, and changed before it was");
}

#[test]
fn an_adversary_stops_conversions_with_the_truth_or_with_nonsense() {
    let mut outcomes = [0; 3];
    for seed in 0..200 {
        let machine = machine(PlatformName::Hyperv);
        let malice = Malice { stops: 128, nonsense: 64, ..Malice::default() };
        let hostile = Adversary::new(machine.clone(), &machine, malice, seed);
        let run = machine.take(6 * GRANULE).unwrap();
        let answer = share(&hostile, run);
        let truth = shared(&machine, run);
        let Err(error) = answer else {
            assert_eq!(truth, [true; 6]);
            outcomes[0] += 1;
            continue;
        };
        assert_eq!(error.code, code::HOSTILE);
        let end = error.done.checked_add(error.doubt).filter(|end| *end <= run.len());
        let whole = error.done % GRANULE == 0 && error.doubt % GRANULE == 0;
        let Some(end) = end.filter(|_| whole) else {
            outcomes[2] += 1;
            continue;
        };
        let (done, end) = ((error.done / GRANULE) as usize, (end / GRANULE) as usize);
        assert!(done < 6 && truth[..done].iter().all(|shared| *shared), "{error} {truth:?}");
        assert!(truth[end..].iter().all(|shared| !shared), "{error} {truth:?}");
        outcomes[1] += 1;
    }
    assert!(outcomes[0] > 20 && outcomes[1] > 60 && outcomes[2] > 20, "{outcomes:?}");
}
