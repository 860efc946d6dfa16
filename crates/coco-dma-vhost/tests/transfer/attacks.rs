//! Attacks on both kinds of device, on every platform of a guest.

use std::time::Instant;

use coco_dma::regime::PlatformName;
use coco_dma_vhost::attack::{Attack, AttackError, Target, attack};
use coco_dma_vhost::device::{Keeper, Kind};
use rustix::process::Signal;

use crate::bench::{Images, POOL, SOON, job, on, run};
use crate::hostile::{self, Trick};
use crate::loss::{kill, signal};
use crate::tests::GUESTS;

pub(crate) fn every_attack_is_refused(kind: Kind) {
    for platform in GUESTS {
        on(*platform, POOL, |layer| {
            let images = Images::new(1 << 20);
            let launch = images.launch(kind);
            let mut keeper = Keeper::new(&launch);
            run(layer, &mut keeper, &job(1 << 20, 8)).unwrap();
            let backing = std::fs::File::open(images.path("scratch")).unwrap();
            let target = Target { export: 2, backing: Some(&backing) };
            let begun = Instant::now();
            let attacks = attack(layer, &mut keeper, &target).unwrap();
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
            let names: Vec<&str> = attacks.iter().map(|attack| attack.name).collect();
            assert_eq!(
                names,
                [
                    "private-memory-write",
                    "private-memory-read",
                    "private-pointer-write",
                    "private-pointer-read",
                    "past-the-pool",
                    "below-the-pool",
                    "across-the-end",
                    "wrapping",
                    "at-zero",
                    "of-length-zero",
                    "wrong-form",
                ]
            );
            for Attack { name, refused, intact, how } in &attacks {
                assert!(*refused && *intact, "{platform:?} {name}: {how}");
                assert!(how.contains("closed the connection, saying: "), "{name}: {how}");
            }
            assert_eq!(layer.pool().used(), 0);
            assert_eq!(keeper.restarts(), 0);
            assert!(keeper.process().unwrap().poll_exit().is_none());
            assert!(images.output() == images.bytes);
        });
    }
}

pub(crate) fn an_attack_needs_a_living_device(kind: Kind) {
    on(PlatformName::Tdx, POOL, |layer| {
        let images = Images::new(1 << 20);
        let launch = images.launch(kind);
        let mut keeper = Keeper::new(&launch);
        let target = Target { export: 2, backing: None };
        // Dead or deaf before the first shot: another one is attacked.
        for sent in [Signal::KILL, Signal::STOP] {
            let process = keeper.process().unwrap();
            drop(process.connect(2).unwrap());
            signal(process, sent);
            let before = keeper.restarts();
            let attacks = attack(layer, &mut keeper, &target).unwrap();
            assert!(attacks.iter().all(|attack| attack.refused && attack.intact), "{attacks:?}");
            assert_eq!(keeper.restarts(), before + 1);
            assert_eq!(layer.pool().used(), 0);
        }
        keeper.stop().unwrap();
        // A device that takes no writes refuses good requests as well.
        let target = Target { export: 0, backing: None };
        let error = attack(layer, &mut Keeper::new(&launch), &target).unwrap_err();
        assert!(matches!(error, AttackError::Control(_)), "{error}");
        assert_eq!(layer.pool().used(), 0);
    });
}

/// Killed at any moment of the attack: it answers in the end, and no death counts as a refusal.
pub(crate) fn an_attack_goes_on_after_a_loss(kind: Kind) {
    on(PlatformName::Cca, POOL, |layer| {
        let images = Images::new(1 << 20);
        let launch = images.launch(kind);
        let mut keeper = Keeper::new(&launch);
        let target = Target { export: 2, backing: None };
        let begun = Instant::now();
        attack(layer, &mut keeper, &target).unwrap();
        let whole = begun.elapsed();
        let mut restarts = 0;
        for part in 0..10 {
            let mut keeper = Keeper::new(&launch);
            let process = keeper.process().unwrap();
            drop(process.connect(2).unwrap());
            let pid = process.pid();
            let attacks = std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(whole * part / 10);
                    kill(pid);
                });
                attack(layer, &mut keeper, &target).unwrap()
            });
            assert_eq!(attacks.len(), 11);
            for Attack { name, refused, intact, how } in &attacks {
                assert!(*refused && *intact, "{name}: {how}");
                // What a killed device looks like: a connection closed without a reason.
                assert!(how.contains("closed the connection, saying: "), "{name}: {how}");
            }
            assert!(keeper.restarts() <= 1);
            restarts += keeper.restarts();
            assert_eq!(layer.pool().used(), 0);
        }
        assert!(restarts >= 5, "{restarts}");
    });
}

/// A connection that is closed by a death, and a silence of somebody who hears nothing, are no
/// refusals: the shot is repeated.
pub(crate) fn a_dead_or_deaf_device_refuses_nothing() {
    for trick in [Trick::DiesOfIt, Trick::StopsAtIt] {
        on(PlatformName::Tdx, POOL, |layer| {
            let dir = tempfile::tempdir().unwrap();
            let launch = hostile::launch(dir.path(), trick);
            let mut keeper = Keeper::new(&launch);
            let target = Target { export: 1, backing: None };
            let attacks = attack(layer, &mut keeper, &target).unwrap();
            assert_eq!((attacks.len(), keeper.restarts()), (11, 1), "{trick:?}");
            for Attack { name, refused, intact, how } in &attacks {
                assert!(*refused && *intact, "{name}: {how}");
                assert_eq!(how, "answered with status 1", "{trick:?} {name}");
            }
            assert_eq!(layer.pool().used(), 0);
        });
    }
}
