//! `coco-dma explain`, operation map, from outside: rows of arguments and the answers that the design demands.
//! Written from the documents alone, without a look at the implementation.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests: a panic is how a test fails"
)]

mod common;

use common::{Answer, explain, in_parallel, number, one_of, option, report, rows, run};

/// What a row says about `dma_addr`. `Err` says what is wrong with the answer.
fn address_holds(expected: &str, args: &[&str], answer: &Answer) -> Result<(), String> {
    let got = answer.dma_addr;
    match expected {
        "*" | "?" => return Ok(()),
        "null" if got.is_none() => return Ok(()),
        "null" => return Err("dma_addr must be null".to_owned()),
        _ => {}
    }
    let address = got.ok_or("dma_addr must not be null")?;
    let Some(range) = expected.strip_prefix("in ") else {
        return if address == number(expected) { Ok(()) } else { Err("wrong dma_addr".to_owned()) };
    };
    let (range, low) = range.split_once(" low ").unwrap_or((range, "0"));
    let (start, length) = range.split_once('+').expect("broken table: `in ADDR+SIZE`");
    let last_valid = number(start) + (number(length) - 1);
    let size = option(args, "--size").map_or(1, number);
    let last = address.checked_add(size - 1).ok_or("the mapping wraps")?;
    if address < number(start) || last > last_valid {
        return Err(format!("the mapping {address:#x} to {last:#x} is not in the pool's form"));
    }
    let phys = option(args, "--phys").map_or(0, number);
    if (address ^ phys) & number(low) != 0 {
        return Err(format!("dma_addr does not keep the bits {low} of --phys"));
    }
    Ok(())
}

fn check(row: &(usize, Vec<&str>)) -> Option<String> {
    let (line, columns) = row;
    let [args, outcome, reason, address, pool, source] = columns.as_slice() else {
        panic!("broken table, line {line}");
    };
    let words: Vec<&str> = args.split_whitespace().collect();
    let expected = format!("{outcome}, {reason}, dma_addr {address}, pool {pool}");
    let failure = |got: String| {
        Some(format!(
            "line {line}: explain --json {args}\n    expected {expected}\n    got      {got}\n    because  {source}"
        ))
    };
    let answer = match explain(&words) {
        Ok(answer) => answer,
        Err(message) => return failure(message),
    };
    let mut wrong = Vec::new();
    if !one_of(outcome, &answer.outcome) {
        wrong.push("wrong outcome".to_owned());
    }
    if !one_of(reason, &answer.reason) {
        wrong.push("wrong reason".to_owned());
    }
    if let Err(message) = address_holds(address, &words, &answer) {
        wrong.push(message);
    }
    if *pool != "*" && *pool != answer.pool.as_deref().unwrap_or("null") {
        wrong.push("wrong pool".to_owned());
    }
    if wrong.is_empty() {
        return None;
    }
    failure(format!(
        "{}, {}, dma_addr {}, pool {}: {}",
        answer.outcome,
        answer.reason,
        answer.dma_addr.map_or("null".to_owned(), |a| format!("{a:#x}")),
        answer.pool.as_deref().unwrap_or("null"),
        wrong.join("; ")
    ))
}

fn table(what: &str, text: &str) {
    let cases = rows(text, 6);
    let failures = in_parallel(&cases, check);
    report(what, cases.len(), &failures);
}

#[test]
fn what_the_documents_say() {
    table("cases of tests/data/explain.table", include_str!("data/explain.table"));
}

#[test]
fn what_the_documents_leave_open() {
    table("cases of tests/data/explain_lenient.table", include_str!("data/explain_lenient.table"));
}

/// Every slug of a map that one call of `explain` can bring about stands in the strict table, so that a reason
/// cannot lose its test unseen.
#[test]
fn every_reason_has_a_row() {
    let cases = rows(include_str!("data/explain.table"), 6);
    let mut missing = Vec::new();
    for slug in [
        "in-reach",
        "already-shared",
        "restricted-pool",
        "forced",
        "private-memory",
        "shared-unreachable",
        "unmapped-bus-range",
        "beyond-mask",
        "beyond-bus-limit",
        "bad-attribute",
        "invalid-range",
        "guest-only",
        "mixed-run",
        "attribute-contradicts-ledger",
        "private-mmio",
        "mmio-cannot-bounce",
        "require-coherent",
        "no-pool",
        "no-private-pool",
        "pool-label-mismatch",
        "no-reachable-pool",
        "too-large",
    ] {
        if !cases.iter().any(|(_, row)| row[2] == slug) {
            missing.push(slug);
        }
    }
    assert!(missing.is_empty(), "no row for {missing:?}");
}

/// A thousand pools, the last of which is the only one that suits.
#[test]
fn a_thousand_pools() {
    let pools: Vec<String> = (0..999_u64)
        .map(|i| format!("guest-private@{:#x}+64KiB", 0x1_0000_0000 + i * 0x1_0000))
        .chain(core::iter::once("guest-shared@0x90000000".to_owned()))
        .collect();
    let mut args = vec!["--platform", "cca", "--phys", "0x80000000", "--size", "4096"];
    for pool in &pools {
        args.extend(["--pool", pool]);
    }
    let answer = explain(&args).unwrap();
    assert_eq!(answer.outcome, "bounce");
    assert_eq!(answer.reason, "private-memory");
    assert_eq!(answer.pool.as_deref(), Some("guest-shared@0x90000000"));
    let address = answer.dma_addr.unwrap();
    assert!((0x8000_9000_0000..0x8000_9400_0000).contains(&address), "{address:#x}");
}

/// The same without the one that suits, and with a thousand that all do.
#[test]
fn a_thousand_pools_of_one_kind() {
    for (label, outcome, reason) in [
        ("guest-private", "refuse", "pool-label-mismatch"),
        ("guest-shared", "bounce", "private-memory"),
    ] {
        let pools: Vec<String> = (0..1000_u64)
            .map(|i| format!("{label}@{:#x}+64KiB", 0x1_0000_0000 + i * 0x1_0000))
            .collect();
        let mut args = vec!["--platform", "tdx", "--phys", "0x80000000", "--size", "4096"];
        for pool in &pools {
            args.extend(["--pool", pool]);
        }
        let answer = explain(&args).unwrap();
        assert_eq!((answer.outcome.as_str(), answer.reason.as_str()), (outcome, reason));
        if let Some(pool) = answer.pool {
            assert!(pools.contains(&pool), "{pool} was never given");
        }
    }
}

/// Whatever the numbers: an answer or wrong usage, never a panic, a signal or a hang.
#[test]
fn hostile_numbers() {
    let numbers = [
        "0",
        "1",
        "0xfff",
        "0x7fffffffffffffff",
        "0x8000000000000000",
        "0xfffffffffffff000",
        "0xffffffffffffffff",
    ];
    let mut cases = Vec::new();
    for platform in
        ["open", "sme", "sev", "snp", "snp-vtom", "tdx", "cca", "pkvm", "hyperv", "s390", "pef"]
    {
        for number in numbers {
            for option in [
                "--phys",
                "--size",
                "--bus-limit",
                "--min-align-mask",
                "--boundary",
                "--granule",
                "--vtom",
                "--c-bit",
                "--ipa-bits",
                "--gpaw",
                "--mask",
            ] {
                let mut args = vec![
                    "explain",
                    "--json",
                    "--platform",
                    platform,
                    "--force-bounce",
                    option,
                    number,
                ];
                if option != "--phys" {
                    args.extend(["--phys", "0x80000abc"]);
                }
                if option != "--size" {
                    args.extend(["--size", "4096"]);
                }
                for pool in ["guest-shared@0x90000000", "ordinary@0xa0000000"] {
                    args.extend(["--pool", pool]);
                }
                cases.push(args.into_iter().map(str::to_owned).collect::<Vec<_>>());
            }
        }
    }
    for pool in [
        "guest-shared@0xffffffffffff0000",
        "guest-shared@0xffffffffffffffff+1",
        "guest-shared@0+0xffffffffffffffff",
        "guest-shared@0x8000000000000000+0x8000000000000000",
        "guest-shared@0x90000000+0",
        "guest-shared@0x90000001+1",
        "restricted:guest-shared@0xfffffffffffff000+4096",
        "restricted:guest-shared@0x90000000+0",
    ] {
        for size in ["1", "4096", "0xffffffffffffffff"] {
            for mask in ["1", "32", "64"] {
                let line = format!(
                    "explain --json --platform cca --phys 0x80000abc --size {size} --mask {mask} \
                     --min-align-mask 0xfff --boundary 4096 --pool {pool}"
                );
                cases.push(line.split_whitespace().map(str::to_owned).collect());
            }
        }
    }
    for range in [
        "0:0:0",
        "0:0:0xffffffffffffffff",
        "0xffffffffffffffff:0:1",
        "0xffffffffffffffff:0xffffffffffffffff:0xffffffffffffffff",
        "0x80000000:0xfffffffffffff000:0x40000000",
        "0x80000000:0xffffffff80000000:0x80000000",
    ] {
        for platform in ["open", "sme", "tdx", "cca", "snp-vtom"] {
            let line = format!(
                "explain --json --platform {platform} --phys 0x80000abc --size 4096 --bus-range {range} \
                 --pool guest-shared@0x90000000 --pool ordinary@0x90000000"
            );
            cases.push(line.split_whitespace().map(str::to_owned).collect());
        }
    }
    let failures = in_parallel(&cases, |args: &Vec<String>| {
        let ran = run(args);
        let sound = match ran.status {
            Some(0) => serde_json::from_str::<serde_json::Value>(&ran.stdout).is_ok(),
            Some(2) => ran.stdout.is_empty() && !ran.stderr.trim().is_empty(),
            _ => false,
        };
        if sound && !ran.stderr.contains("panicked") {
            return None;
        }
        Some(format!(
            "{}\n    status {:?}, stdout `{}`, stderr `{}`",
            args.join(" "),
            ran.status,
            ran.stdout.trim(),
            ran.stderr.trim()
        ))
    });
    report("hostile calls", cases.len(), &failures);
}

/// The decision is pure: the same question has the same answer, to the byte.
#[test]
fn the_same_question_has_the_same_answer() {
    let args = [
        "explain",
        "--json",
        "--platform",
        "cca",
        "--phys",
        "0x80000000",
        "--size",
        "4096",
        "--pool",
        "guest-shared@0x90000000",
    ];
    let first = run(&args);
    assert_eq!(first.status, Some(0), "{}", first.stderr);
    assert!(!first.stdout.is_empty(), "no answer at all");
    for _ in 0..3 {
        assert_eq!(run(&args).stdout, first.stdout);
    }
}

/// A form option that the platform does not use is ignored, with a note on standard error that names it; one that
/// it uses has no such note.
#[test]
fn ignored_form_options_are_noted() {
    let mut failures = Vec::new();
    let base = ["--phys", "0x80000000", "--size", "4096"];
    let cases = [
        ("open", "--c-bit", "47"),
        ("open", "--ipa-bits", "40"),
        ("open", "--gpaw", "48"),
        ("open", "--vtom", "0x10000000000"),
        ("sme", "--ipa-bits", "40"),
        ("sme", "--gpaw", "48"),
        ("sme", "--vtom", "0x10000000000"),
        ("tdx", "--c-bit", "47"),
        ("tdx", "--ipa-bits", "40"),
        ("tdx", "--vtom", "0x10000000000"),
        ("cca", "--c-bit", "47"),
        ("cca", "--gpaw", "48"),
        ("cca", "--vtom", "0x10000000000"),
        ("pkvm", "--c-bit", "47"),
        ("pkvm", "--ipa-bits", "40"),
        ("s390", "--gpaw", "48"),
        ("pef", "--ipa-bits", "40"),
    ];
    for (platform, option, value) in cases {
        let mut args = vec!["explain", "--json", "--platform", platform];
        args.extend(base);
        let without = run(&args);
        args.extend([option, value]);
        let with = run(&args);
        if with.status != Some(0)
            || without.status != Some(0)
            || !with.stderr.contains(option.trim_start_matches("--"))
            || serde_json::from_str::<serde_json::Value>(&with.stdout).is_err()
            || decision(&with.stdout) != decision(&without.stdout)
        {
            failures.push(format!(
                "{}\n    status {:?}, stdout `{}`, stderr `{}` (a note that names {option} expected, the answer unchanged)",
                args.join(" "),
                with.status,
                with.stdout.trim(),
                with.stderr.trim()
            ));
        }
    }
    report("ignored options", cases.len(), &failures);
}

fn decision(document: &str) -> Option<Vec<serde_json::Value>> {
    let document: serde_json::Value = serde_json::from_str(document).ok()?;
    ["outcome", "reason", "dma_addr", "pool"].iter().map(|key| document.get(key).cloned()).collect()
}

/// Without `--json`: a story for people, plain text where it does not go to a terminal.
#[test]
fn the_story_for_people() {
    for (line, words) in [
        (
            "explain --platform cca --ipa-bits 40 --phys 0x80000000 --size 4096 --pool guest-shared@0x90000000",
            ["bounce", "private-memory"],
        ),
        ("explain --platform sme --phys 0x100000000 --size 4096", ["direct", "0x800100000000"]),
        (
            "explain --platform tdx --phys 0x80000000 --size 4096 --attr cc-shared",
            ["refuse", "attribute-contradicts-ledger"],
        ),
    ] {
        let args: Vec<&str> = line.split_whitespace().collect();
        let ran = run(&args);
        assert_eq!(ran.status, Some(0), "{line}: {}", ran.stderr);
        for word in words {
            assert!(ran.stdout.contains(word), "{line}: no `{word}` in\n{}", ran.stdout);
        }
        assert!(!ran.stdout.contains('\u{1b}'), "{line}: escape codes in a pipe");
        assert!(
            serde_json::from_str::<serde_json::Value>(&ran.stdout).is_err(),
            "{line}: JSON without --json"
        );
    }
}
