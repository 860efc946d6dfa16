//! Cases that expect something wrong on purpose: each is seen to fail, at the step that does not
//! hold. What passes whatever happens would be no test.

use coco_dma_cases::{Heed, Outcome, Path, Witness, read_file, run, run_with};

const HEAD: &str = r#"name = "wrong"
title = "Does not hold"
source = "own"
machine = { platform = "tdx" }
device = [{ name = "disk" }]
pool = [{ name = "shared", label = "guest-shared", at = 0x4010_0000, size = "64KiB" }]
[[memory]]
name = "buffer"
at = 0x4020_0000
size = 4096
fill = "abc"
[[memory]]
name = "ring"
at = 0x4021_0000
size = 4096
state = "shared"
[[memory]]
name = "key"
at = 0x4022_0000
size = 4096
secret = true
"#;

const MAP: &str = "[[step]]\nop = \"map\"\ndevice = \"disk\"\nmemory = \"buffer\"\nas = \"m\"\n";
const FINISH: &str = "[[step]]\nop = \"unmap\"\nmap = \"m\"\n";

fn outcome(steps: &str) -> Outcome {
    let cases = read_file("a.toml", &format!("{HEAD}{steps}")).unwrap();
    run(&cases[0])
}

#[track_caller]
fn fails(steps: &str, expected: &str, got: &str) {
    let outcome = outcome(steps);
    assert!(!outcome.ok, "it holds");
    assert!(outcome.expected.contains(expected), "expected {}", outcome.expected);
    assert!(outcome.got.contains(got), "got {}", outcome.got);
}

#[test]
fn what_is_right_holds() {
    let all = "expect = { outcome = \"bounce\", reason = \"private-memory\", pool = \"shared\", \
               address = 0x4010_0000, address-low = { mask = 0xfff, is = 0 }, used = { shared = 2 }, \
               rules = [\"reach\", \"pool\"], counters = { disk = { bounced = 1, live = 1, holds = 2 } }, \
               shares = 0, events = [\"bounced\"], states = { buffer = \"private\", ring = \"shared\" }, \
               books = { buffer = \"private\", ring = \"shared\", shared = \"foreign-shared\" } }\n";
    let outcome = outcome(&format!("{MAP}{all}{FINISH}"));
    assert!(outcome.ok, "{} {}", outcome.expected, outcome.got);
}

#[test]
fn each_expectation_is_compared() {
    for (expect, expected, got) in [
        ("outcome = \"direct\"", "map: direct", "bounce (private-memory)"),
        ("outcome = \"refuse\"", "map: refuse", "bounce"),
        ("reason = \"forced\"", "(forced)", "private-memory"),
        ("address = 0x4010_0800", "address 0x40100800", "0x40100000"),
        ("address-low = { mask = 0xfff, is = 1 }", "0x1 under 0xfff", "bounce"),
        ("rules = [\"pool\", \"reach\"]", "the rules pool, reach", "reach"),
        ("used = { shared = 1 }", "1 slots of 'shared'", "2"),
        ("open = { shared = false }", "'shared' is open", "true"),
        ("pins = { buffer = 1 }", "1 pins on 'buffer'", "0"),
        ("states = { buffer = \"shared\" }", "'buffer' is shared", "private"),
        ("states = { shared = \"private\" }", "'shared' is private", "shared"),
        ("books = { ring = \"private\" }", "'ring' private", "shared"),
        ("quarantine = 4096", "0x1000 bytes in quarantine", "0x0"),
        ("counters = { disk = { direct = 1 } }", "direct 1", "direct 0"),
        ("shares = 1", "1 shares", "0"),
        ("reclaims = 1", "1 reclaims", "0"),
        ("events = []", "the events []", "bounced"),
        ("cache-work = true", "cache work: true", "false"),
    ] {
        fails(&format!("{MAP}expect = {{ {expect} }}\n{FINISH}"), expected, got);
    }
}

#[test]
fn bytes_are_compared_with_what_was_really_seen() {
    let read = |op: &str, expect: &str| {
        format!("{MAP}[[step]]\nop = \"{op}\"\nexpect = {{ {expect} }}\n{FINISH}")
    };
    let device = "device-read\"\nmap = \"m";
    fails(&read(device, "bytes = \"abd\""), "from byte 2 on 64", "63");
    fails(&read(device, "bytes-not = \"bca\""), "must not be there", "byte 1");
    fails(&read(device, "outcome = \"fault\""), "fault", "clear");
    let host = "host-read\"\nmemory = \"buffer";
    fails(&read(host, "outcome = \"clear\""), "clear", "fault");
    fails(&read(host, "bytes = 0"), "that it goes through", "fault");
    let driver = "driver-read\"\nmemory = \"buffer";
    fails(&read(driver, "bytes = [{ is = \"abc\", size = 3 }, { is = 0 }]"), "from byte 3", "61");
}

#[test]
fn what_is_not_expected_in_words_does_not_pass() {
    let refused = MAP.replace("as = \"m\"", "attrs = [\"require-coherent\"]");
    fails(&refused, "that it goes through", "refuse (require-coherent)");
    let secret =
        "[[step]]\nop = \"device-read\"\ndevice = \"disk\"\naddress = 0x4022_0000\nsize = 8\n";
    fails(secret, "that it goes through", "fault");
}

#[test]
fn everything_has_to_be_given_back() {
    fails(MAP, "every map and allocation is ended", "'m' lives");
    let alloc = "[[step]]\nop = \"alloc\"\ndevice = \"disk\"\nsize = 1\nas = \"a\"\n";
    fails(alloc, "every map and allocation is ended", "'a' lives");
    let kept = format!("{MAP}[end]\nlive = [\"m\"]\nused = {{ shared = 2 }}\n");
    assert!(outcome(&kept).ok);
    fails(&format!("{MAP}{FINISH}[end]\nlive = [\"m\"]\n"), "that 'm' lives", "it does not");
    let share = "[[step]]\nop = \"share\"\nmemory = \"buffer\"\n";
    fails(share, "the granule at 0x40200000 is private", "shared");
    let said = format!("{share}[end]\nstates = {{ buffer = \"shared\" }}\n");
    assert!(outcome(&said).ok, "{}", outcome(&said).got);
    let fail = "[[step]]\nop = \"fail-conversion\"\ndoubt = 4096\n[[step]]\nop = \"share\"\n\
                memory = \"buffer\"\nexpect = { outcome = \"refuse\" }\n";
    fails(fail, "nothing in quarantine", "0x1000");
    assert!(outcome(&format!("{fail}[end]\nquarantine = 4096\n")).ok);
}

#[test]
fn a_secret_that_the_host_sees_is_a_failure() {
    let map = MAP.replace("buffer", "key");
    fails(&format!("{map}{FINISH}"), "the host never saw a secret", "it was clear at 0x4010");
}

#[test]
fn a_failure_stands_where_it_is_written() {
    let outcome = outcome(&format!("{MAP}expect = {{ outcome = \"direct\" }}\n{FINISH}"));
    let line = HEAD.lines().count() + 1;
    assert_eq!(outcome.place.to_string(), format!("a.toml:{line}:1"));
}

/// Without the layer's own word, what a device, the host or a driver saw still counts.
#[test]
fn what_was_seen_counts_and_what_was_said_does_not() {
    let seen = |steps: &str| {
        let cases = read_file("a.toml", &format!("{HEAD}{steps}")).unwrap();
        run_with(&cases[0], Heed::Seen, &Path::ALL)
    };
    let said = format!("{MAP}expect = {{ outcome = \"direct\", address = 1 }}\n{FINISH}");
    assert_eq!(outcome(&said).witness, Some(Witness::Layer));
    assert!(seen(&said).ok);
    let read = "[[step]]\nop = \"device-read\"\nmap = \"m\"\n";
    for (expect, witness) in [
        ("expect = { bytes = \"xyz\" }\n", Witness::Device),
        ("expect = { outcome = \"none\" }\n", Witness::Device),
        (
            "[[step]]\nop = \"driver-read\"\nmemory = \"buffer\"\nexpect = { bytes = 1 }\n",
            Witness::Driver,
        ),
        (
            "[[step]]\nop = \"host-read\"\nmemory = \"ring\"\nexpect = { bytes = 1 }\n",
            Witness::Host,
        ),
        (
            "[[step]]\nop = \"check\"\nexpect = { states = { ring = \"private\" } }\n",
            Witness::Machine,
        ),
    ] {
        let steps = format!("{MAP}{read}{expect}{FINISH}");
        assert_eq!(seen(&steps).witness, Some(witness), "{expect}");
        assert_eq!(outcome(&steps).witness, Some(witness), "{expect}");
    }
}

/// What fails on one path names it; what takes none has none to name.
#[test]
fn a_failure_names_its_path() {
    let cases = read_file("a.toml", &format!("{HEAD}{MAP}{FINISH}")).unwrap();
    let outcome = run(&cases[0]);
    assert_eq!((outcome.path, outcome.paths.as_slice()), (None, Path::ALL.as_slice()));
    for path in Path::ALL {
        let outcome = run_with(&cases[0], Heed::All, &[path]);
        assert_eq!((outcome.path, outcome.paths), (None, vec![path]));
        let wrong = format!("{HEAD}{MAP}expect = {{ outcome = \"direct\" }}\n{FINISH}");
        let wrong = read_file("a.toml", &wrong).unwrap();
        assert_eq!(run_with(&wrong[0], Heed::All, &[path]).path, Some(path));
    }
    let check = "[[step]]\nop = \"check\"\nexpect = { states = { ring = \"private\" } }\n";
    assert_eq!(self::outcome(check).path, None);
}
