//! The search for what nobody gave: that it finds what is there, when it came, and nothing in
//! ordinary work.

use coco_dma::Dma;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::platform::Platform;
use coco_dma::regime::PlatformName;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;
use coco_dma::state::Trust;
use coco_dma_sim::GuestBuffer;
use coco_dma_sim::Leak;
use coco_dma_sim::Machine;
use coco_dma_sim::Moment;
use coco_dma_sim::Outcome;
use coco_dma_sim::SimDevice;
use coco_dma_sim::Step;
use coco_dma_sim::marker;

use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::GUESTS;
use crate::support::finish;
use crate::support::machine;
use crate::support::map;
use crate::support::map_cpu;
use crate::support::pool;
use crate::support::reclaim;
use crate::support::share;

#[test]
fn a_planted_leak_is_found_across_granules_too() {
    for platform in GUESTS {
        let machine = machine(platform);
        let secret = marker(1);
        let run = machine.take(3 * GRANULE).unwrap();
        share(&machine, run).unwrap();
        assert_eq!(machine.watch_for(&secret), 0);
        let places = [5, GRANULE - 7, 3 * GRANULE - 32];
        let wanted = places.map(|offset| run.slice(offset, 32).unwrap());
        for place in wanted {
            machine.guest_write(place.base(), &secret);
        }
        assert_eq!(machine.search(&secret), wanted, "{platform}");
        let leaks = machine.leaks();
        assert_eq!(leaks.iter().map(|leak| leak.at).collect::<Vec<_>>(), wanted);
        assert!(leaks.iter().all(|leak| leak.moment == Moment::Look && leak.marker == 0));
    }
}

#[test]
fn memory_that_is_shared_unwiped_leaks_where_the_platform_keeps_it() {
    for platform in GUESTS {
        let machine = machine(platform);
        let secret = marker(2);
        machine.fill_private(&secret);
        machine.watch_for(&marker(3));
        machine.watch_for(&secret);
        let run = machine.take(2 * GRANULE).unwrap();
        share(&machine, run).unwrap();
        // Gone again before anybody could ask: the watch looked inside the conversion.
        machine.guest_write(run.base(), &[0; 2 * 4096]);
        reclaim(&machine, run).unwrap();
        assert_eq!(machine.search(&secret), [], "{platform}");
        let leaks = machine.leaks();
        let kept = [PlatformName::Pkvm, PlatformName::Hyperv, PlatformName::S390];
        if !kept.contains(&platform) {
            assert_eq!(leaks, [], "{platform}");
            continue;
        }
        assert_eq!(leaks.len(), 256, "{platform}");
        assert_eq!((leaks[0].marker, leaks[0].at), (1, run.slice(0, 32).unwrap()));
        let granule = run.slice(0, GRANULE).unwrap();
        let moment = Moment::Convert { granule, to: State::SHARED, step: Step::After };
        assert_eq!(leaks[0].moment, moment);
    }
}

#[test]
fn a_secret_across_granules_is_seen_when_the_second_one_is_shared() {
    let machine = machine(PlatformName::Pkvm);
    let secret = marker(7);
    machine.watch_for(&secret);
    let run = machine.take(2 * GRANULE).unwrap();
    let across = run.slice(GRANULE - 31, 32).unwrap();
    machine.guest_write(across.base(), &secret);
    share(&machine, run).unwrap();
    machine.guest_write(across.base(), &[0; 32]);
    let granule = run.slice(GRANULE, GRANULE).unwrap();
    let moment = Moment::Convert { granule, to: State::SHARED, step: Step::After };
    assert_eq!(machine.leaks(), [Leak { marker: 0, at: across, moment }]);
}

/// What is done to a machine.
type Deed = fn(&SimDevice, &GuestBuffer, &Machine);

#[test]
fn a_leak_that_is_there_for_one_moment_only_is_seen_at_that_moment() {
    let addr = BASE + 2048;
    // What is done, and the moment as which it counts.
    let deeds: [(Deed, Moment); 5] = [
        (|nic, _, _| assert_eq!(nic.fetch(BASE + 2048, 1), Ok(vec![0])), Moment::Access { addr }),
        (
            |nic, _, _| assert_eq!(nic.write(BASE + 2048, &[0]), Outcome::Clear),
            Moment::Access { addr },
        ),
        (|_, b, m| m.sync_for_device(b.bytes(), Direction::Both, false), Moment::HandOver),
        (|_, b, m| m.sync_for_cpu(b.bytes(), Direction::Both, false), Moment::TakeBack),
        (|_, b, m| assert!(map_cpu(m, b.run(), State::PRIVATE).is_ok()), Moment::View),
    ];
    for (deed, moment) in deeds {
        let machine = machine(PlatformName::Snp);
        let memory = machine.adopt_pool(PoolLabel::GuestShared, GRANULE).unwrap();
        let secret = marker(4);
        machine.watch_for(&secret);
        machine.guest_write(memory.range.base(), &secret);
        let buffer = machine.alloc(1).unwrap();
        deed(&SimDevice::new(&machine, "nic", Trust::Untrusted), &buffer, &machine);
        machine.guest_write(memory.range.base(), &[0; 32]);
        let at = memory.range.slice(0, 32).unwrap();
        assert_eq!(machine.leaks(), [Leak { marker: 0, at, moment }]);
    }
}

#[test]
fn ordinary_streaming_leaks_nothing() {
    for platform in GUESTS {
        let machine = machine(platform);
        let memory = machine.adopt_pool(PoolLabel::GuestShared, 1 << 15).unwrap();
        let words = memory.words();
        let pools = [pool(&memory, &words)];
        let dma = Dma::new(&machine, &pools);
        let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        let nic = SimDevice::new(&machine, "nic", Trust::Untrusted);
        let secret = marker(6);
        machine.fill_private(&secret);
        machine.watch_for(&secret);
        for round in 0..8 {
            // What lies around the buffer, and in it where the device only writes, is secret.
            let buffer = machine.alloc_at_offset(1500 + round * 100, 64 * round).unwrap();
            let mapping = map(&device, &buffer, Direction::FromDevice).unwrap();
            nic.write(mapping.addr().raw(), &[1; 700]);
            finish(&device, mapping, 700);
            buffer.write(&vec![2; buffer.read().len()]);
            let mapping = map(&device, &buffer, Direction::ToDevice).unwrap();
            assert_eq!(nic.fetch(mapping.addr().raw(), 1500), Ok(vec![2; 1500]));
            finish(&device, mapping, 0);
        }
        assert_eq!(machine.leaks(), [], "{platform}");
        assert_eq!(machine.search(&secret), [], "{platform}");
        assert!(machine.counts().hand_overs >= 16);
    }
}
