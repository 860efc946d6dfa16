//! Front ends whose device says nothing, too little, or too slowly.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use coco_dma::regime::{Parameters, PlatformName};

use super::{Front, FrontError};
use crate::machine::UserMachine;
use crate::memory::PrivateArena;

fn machine(platform: PlatformName) -> UserMachine {
    let regime = platform.regime(&Parameters::default()).unwrap();
    UserMachine::new(regime, PrivateArena::new(4096).unwrap(), 1 << 20).unwrap()
}

#[test]
fn a_silent_device_is_given_up() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let begun = Instant::now();
    let error = Front::connect(ours, &machine(PlatformName::Tdx)).unwrap_err();
    assert!(matches!(error, FrontError::Silent { asked: "GET_FEATURES", .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_device_that_trickles_is_given_up() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let trickle = std::thread::spawn(move || {
        // The header of an answer to GET_FEATURES, a byte a second.
        for byte in [1, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0] {
            std::thread::sleep(Duration::from_secs(1));
            if theirs.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    let begun = Instant::now();
    let error = Front::connect(ours, &machine(PlatformName::Tdx)).unwrap_err();
    assert!(matches!(error, FrontError::Silent { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    trickle.join().unwrap();
}

#[test]
fn a_device_that_hangs_up_or_babbles_is_no_device() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let error = Front::connect(ours, &machine(PlatformName::Tdx)).unwrap_err();
    assert!(matches!(error, FrontError::Failed { .. }), "{error}");
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(&[0x5A; 4096]).unwrap();
    let begun = Instant::now();
    let error = Front::connect(ours, &machine(PlatformName::Tdx)).unwrap_err();
    assert!(matches!(error, FrontError::Failed { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_device_is_told_the_form_and_no_address_of_ours() {
    for (platform, form) in [
        (PlatformName::Cca, 0x8000_0000_0000 + 0x2_0000_0000),
        (PlatformName::Snp, 0x2_0000_0000),
        (PlatformName::Tdx, 0x2_0000_0000),
        (PlatformName::Pkvm, 0x2_0000_0000),
    ] {
        let machine = machine(platform);
        machine.windows(|windows| {
            let [window] = windows else { panic!() };
            assert_eq!(window.dma, form);
            assert_eq!(window.len, 1 << 20);
            let ours = machine.shared()[0].region.start().addr().get() as u64;
            assert_ne!(window.front, ours);
            assert_ne!(window.front, form);
            assert_eq!(window.front_of(form + 0xf_ffff), Some(window.front + 0xf_ffff));
            assert_eq!(window.front_of(form + 0x10_0000), None);
            assert_eq!(window.front_of(form - 1), None);
        });
    }
}
