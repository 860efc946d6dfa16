//! Hostile input: any arguments to `explain`, any bytes in a case file. Each is an answer or a
//! sentence, in time, and never a panic.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it fails"
)]

mod common;

use coco_dma_cases::{File, Loaded, built_in, run as run_case};
use common::run;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Numbers at which arithmetic goes wrong, and any others.
fn numbers() -> impl Strategy<Value = String> {
    let edges = select(vec![
        "0",
        "1",
        "4095",
        "4096",
        "0x7fffffff",
        "0x100000000",
        "0x7fffffffffff",
        "0x8000000000000",
        "0x7fffffffffffffff",
        "0xfffffffffffff000",
        "0xffffffffffffffff",
        "18446744073709551616",
        "16777215TiB",
        "-1",
        "",
        "0x",
        "4KiB",
    ]);
    prop_oneof![
        4 => edges.prop_map(str::to_owned),
        2 => any::<u64>().prop_map(|number| format!("{number:#x}")),
        1 => (0u32..64).prop_map(|shift| (1u64 << shift).to_string()),
    ]
}

/// One option with a value, more often a sensible one than not.
fn options() -> impl Strategy<Value = Vec<String>> {
    let word = |option: &'static str, words: &'static [&'static str]| {
        select(words).prop_map(move |word| vec![option.to_owned(), word.to_owned()]).boxed()
    };
    let number = |option: &'static str| {
        numbers().prop_map(move |number| vec![option.to_owned(), number]).boxed()
    };
    let labels = ["ordinary", "host-plain", "guest-shared", "guest-private"];
    let prefixes =
        ["", "restricted:", "machine:", "coherent:", "reserve:", "streaming:", ":", "x:"];
    let prefix = vec(select(prefixes.to_vec()), 0..3).prop_map(|prefixes| prefixes.concat());
    let pool = (prefix, select(labels.to_vec()), numbers(), numbers()).prop_map(
        |(prefix, label, at, len)| vec!["--pool".to_owned(), format!("{prefix}{label}@{at}+{len}")],
    );
    let range = (numbers(), numbers(), numbers())
        .prop_map(|(cpu, bus, len)| vec!["--bus-range".to_owned(), format!("{cpu}:{bus}:{len}")]);
    prop_oneof![
        word(
            "--platform",
            &[
                "open", "sme", "sev", "snp", "snp-vtom", "tdx", "cca", "pkvm", "hyperv", "s390",
                "pef",
            ]
        ),
        word("--trust", &["untrusted", "accepted"]),
        word(
            "--memory",
            &[
                "private",
                "shared",
                "untracked",
                "mixed",
                "mmio",
                "peer",
                "encrypted",
                "plain",
                "ordinary",
                "unaccepted",
                "quarantined",
                "converting",
                "unlocated",
            ]
        ),
        word("--attr", &["cc-shared", "mmio", "require-coherent", "skip-cpu-sync", "no-such"]),
        word("--direction", &["to", "from", "both"]),
        word("--iommu", &["none", "passthrough", "translated"]),
        word("--coherent", &["yes", "no"]),
        word("--context", &["blocking", "atomic"]),
        word("--operation", &["map", "unmap", "sync", "alloc", "free", "mmap", "attach"]),
        word("--kind", &["coherent", "pages", "non-contiguous"]),
        word("--pages", &["yes", "no"]),
        number("--mask"),
        number("--segment"),
        number("--cache-line"),
        number("--iommu-page"),
        number("--align"),
        number("--node"),
        number("--offset"),
        number("--length"),
        number("--bus-limit"),
        number("--boundary"),
        number("--min-align-mask"),
        number("--granule"),
        number("--c-bit"),
        number("--ipa-bits"),
        number("--gpaw"),
        number("--vtom"),
        Just(vec!["--force-bounce".to_owned()]),
        Just(vec!["--external-facing".to_owned()]),
        Just(vec!["--revoked".to_owned()]),
        pool.boxed(),
        range.boxed(),
    ]
}

fn answered(args: &[String]) {
    let ran = run(args);
    assert!(matches!(ran.status, Some(0 | 2)), "{args:?}: {:?} {}", ran.status, ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{args:?}: {}", ran.stderr);
    assert_eq!(ran.stdout.is_empty(), ran.status == Some(2), "{args:?}: {}", ran.stdout);
}

/// What a mutation does to a file.
#[derive(Clone, Debug)]
enum Harm {
    Byte(Index, u8),
    Cut(Index, u8),
    Again(Index, u8),
    Number(Index, String),
}

fn harms() -> impl Strategy<Value = Harm> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Harm::Byte(at, byte)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, len)| Harm::Cut(at, len)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, len)| Harm::Again(at, len)),
        (any::<Index>(), numbers()).prop_map(|(at, number)| Harm::Number(at, number)),
    ]
}

fn harmed(text: &str, harms: &[Harm]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for harm in harms.iter().filter(|_| !text.is_empty()) {
        let len = bytes.len();
        if len == 0 {
            break;
        }
        match harm {
            Harm::Byte(at, byte) => bytes[at.index(len)] = *byte,
            Harm::Cut(at, count) => {
                let start = at.index(len);
                bytes.drain(start..len.min(start + usize::from(*count)));
            }
            Harm::Again(at, count) => {
                let start = at.index(len);
                let part = bytes[start..len.min(start + usize::from(*count))].to_vec();
                bytes.splice(start..start, part);
            }
            Harm::Number(at, number) => {
                // The next number from there on becomes another.
                let from = at.index(len);
                let digit = |byte: &u8| byte.is_ascii_digit();
                let Some(first) = bytes[from..].iter().position(digit) else { continue };
                let rest = &bytes[from + first..];
                let count = rest.iter().position(|b| !b.is_ascii_alphanumeric() && *b != b'_');
                let end = from + first + count.unwrap_or(rest.len());
                bytes.splice(from + first..end, number.bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn explain_answers_whatever_it_is_asked(
        phys in numbers(), size in numbers(), options in vec(options(), 0..8)
    ) {
        let mut args = vec!["explain".to_owned(), "--phys".to_owned(), phys];
        args.extend(["--size".to_owned(), size]);
        args.extend(options.concat());
        answered(&args);
    }

    /// In this process, so that many are tried. What can still be read is run.
    #[test]
    fn a_case_file_of_any_bytes_is_told_or_run(
        file in any::<Index>(), harms in vec(harms(), 1..4)
    ) {
        let files = built_in();
        let text = harmed(&file.get(&files).text, &harms);
        let loaded = Loaded::read(&[File { name: "harmed.toml".to_owned(), text }]);
        for wrong in &loaded.wrong {
            prop_assert!(wrong.to_string().starts_with("harmed.toml:"));
        }
        for case in &loaded.cases {
            let outcome = run_case(case);
            prop_assert!(!outcome.got.contains("a panic"), "{}: {}", case.name, outcome.got);
            prop_assert!(!outcome.got.contains("nothing after"), "{}: {}", case.name, outcome.got);
        }
    }
}

/// Each number of `explain` at each edge, one at a time, for every operation that reads it.
#[test]
fn every_number_at_every_edge_is_answered() {
    let edges = ["0", "1", "3", "4096", "0xfff", "0xfffffffffffff000", "0xffffffffffffffff"];
    let words = "explain --platform open --coherent no --external-facing \
                 --iommu translated --pool coherent:machine:ordinary@0x90000000 \
                 --pool ordinary@0x80000000";
    for operation in ["map", "unmap", "alloc", "free", "mmap", "attach"] {
        for option in ["--segment", "--cache-line", "--iommu-page", "--align", "--boundary"] {
            for (number, size) in edges.iter().flat_map(|n| ["0", "24", "4096"].map(|s| (n, s))) {
                let rest = ["--phys", "0x80000ff0", "--size", size, "--operation", operation];
                let more = [option, number];
                let args: Vec<String> = words
                    .split(' ')
                    .filter(|word| !word.is_empty())
                    .chain(rest)
                    .chain(more)
                    .map(str::to_owned)
                    .collect();
                answered(&args);
            }
        }
    }
}

#[test]
fn a_thousand_pools_are_looked_at() {
    let mut args: Vec<String> =
        ["explain", "--platform", "cca", "--phys", "0x80000000", "--size", "4096"]
            .map(str::to_owned)
            .to_vec();
    for number in 0..1000u64 {
        let at = 0x9000_0000 + number * 0x1_0000;
        args.extend(["--pool".to_owned(), format!("guest-private@{at:#x}+64KiB")]);
    }
    args.extend(["--pool", "guest-shared@0x80010000"].map(str::to_owned));
    let ran = run(&args);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("bounce (private-memory)"), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches(". pool ").count(), 1001);
}

#[test]
fn huge_and_deep_files_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let head = "name = \"x\"\ntitle = \"x\"\nsource = \"own\"\nmachine = { platform = \"tdx\" }\n";
    let entry = |number| format!("[[matrix]]\nentry = \"e{number}\"\n");
    for (name, text) in [
        ("long.toml", format!("{head}# {}\n", "x".repeat(10 << 20))),
        ("deep.toml", format!("{head}a = {}1{}\n", "[".repeat(100_000), "]".repeat(100_000))),
        ("tables.toml", format!("{head}a = {}{}\n", "{ a = ".repeat(50_000), "}".repeat(50_000))),
        ("dots.toml", format!("{head}{}a = 1\n", "a.".repeat(100_000))),
        ("header.toml", format!("{head}[{}a]\n", "a.".repeat(100_000))),
        ("matrix.toml", format!("{head}{}", (0..20_000).map(entry).collect::<String>())),
        ("zeroes.toml", "\0".repeat(1 << 20)),
        ("open.toml", format!("{head}a = \"\"\"{}", "\n".repeat(500_000))),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        for args in [["check", &path], ["check", "--json"], ["explain", "--case"]] {
            let args: Vec<&str> = if args.contains(&path.as_str()) {
                args.to_vec()
            } else {
                args.into_iter().chain([path.as_str()]).collect()
            };
            let ran = run(&args);
            assert_eq!(ran.status, Some(2), "{name}: {}", ran.stderr);
            assert!(ran.stderr.contains(name) && ran.stderr.len() < 4096, "{}", ran.stderr);
        }
    }
}
