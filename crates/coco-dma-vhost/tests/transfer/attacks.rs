//! Attacks on both kinds of device, on every platform of a guest.

use std::time::Instant;

use coco_dma::regime::PlatformName;
use coco_dma_vhost::attack::{Attack, AttackError, Target, attack};
use coco_dma_vhost::device::Kind;
use rustix::process::Signal;

use crate::bench::{Images, POOL, SOON, job, on, run};
use crate::tests::{GUESTS, signal};

pub(crate) fn every_attack_is_refused(kind: Kind) {
    for platform in GUESTS {
        on(*platform, POOL, |layer| {
            let images = Images::new(1 << 20);
            let process = images.start(kind);
            run(layer, &job(&process, 1 << 20, 8)).unwrap();
            let backing = std::fs::File::open(images.path("scratch")).unwrap();
            let target = Target { process: &process, export: 2, backing: Some(&backing) };
            let begun = Instant::now();
            let attacks = attack(layer, &target).unwrap();
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
            assert!(process.poll_exit().is_none());
            assert!(images.output() == images.bytes);
        });
    }
}

pub(crate) fn an_attack_needs_a_living_device(kind: Kind) {
    on(PlatformName::Tdx, POOL, |layer| {
        let images = Images::new(1 << 20);
        let process = images.start(kind);
        let target = Target { process: &process, export: 2, backing: None };
        drop(process.connect(2).unwrap());
        signal(&process, Signal::KILL);
        let error = attack(layer, &target).unwrap_err();
        let dead = matches!(error, AttackError::Device(_) | AttackError::Disk(_));
        assert!(dead, "{error}");
        // A device that takes no writes refuses good requests as well.
        let process = images.start(kind);
        let target = Target { process: &process, export: 0, backing: None };
        let error = attack(layer, &target).unwrap_err();
        assert!(matches!(error, AttackError::Control(_)), "{error}");
        assert_eq!(layer.pool().used(), 0);
    });
}
