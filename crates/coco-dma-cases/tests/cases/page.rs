//! The page of the format is true: it names every key, op, outcome, fact, reason and word that is
//! accepted, and what it names is accepted. What is accepted is asked of the reader itself, which
//! tells all known words with each unknown one.

use std::collections::BTreeSet;
use std::path::Path;

use coco_dma_cases::read_file;

type Words = BTreeSet<String>;

/// A case that has one thing of each kind.
const THINGS: &str = r#"name = "good"
title = "Holds"
source = "own"
[machine]
platform = "PLATFORM"
ram = [{ at = 0x4000_0000, size = "16MiB" }, { at = 0x4100_0000, size = "4MiB", late = true }]
[[pool]]
name = "pool"
label = "guest-shared"
at = 0x4010_0000
size = "64KiB"
[[device]]
name = "disk"
[[device]]
name = "late"
bound = false
[[memory]]
name = "buffer"
at = 0x4020_0000
size = 8192
[[step]]
op = "map"
device = "disk"
memory = "buffer"
as = "m"
[[step]]
op = "alloc"
device = "disk"
size = 4096
as = "a"
[[step]]
op = "mmap"
alloc = "a"
as = "p"
"#;

/// A step of each op that can be read.
const STEPS: &[(&str, &str)] = &[
    ("map", "device = 'disk'\nmemory = 'buffer'"),
    ("map-list", "device = 'disk'\nmemories = ['buffer']"),
    ("unmap", "map = 'm'"),
    ("sync-for-cpu", "map = 'm'"),
    ("sync-for-device", "map = 'm'"),
    ("alloc", "device = 'disk'\nsize = 4096"),
    ("free", "alloc = 'a'"),
    ("share", "memory = 'buffer'"),
    ("reclaim", "memory = 'buffer'"),
    ("add-memory", "at = 0x4100_0000\nsize = 4096"),
    ("remove-memory", "at = 0x4100_0000\nsize = 4096"),
    ("grow", "pool = 'pool'"),
    ("shrink", "pool = 'pool'"),
    ("refill", ""),
    ("retry-quarantine", ""),
    ("reclaim-all", ""),
    ("allow-sharing", ""),
    ("bind", "device = 'late'"),
    ("rebind", "device = 'disk'\nto = 'late'"),
    ("revoke", "device = 'disk'"),
    ("lose-trust", "device = 'disk'"),
    ("ask", "device = 'disk'"),
    ("device-read", "map = 'm'"),
    ("device-write", "map = 'm'\nbytes = 1"),
    ("host-read", "memory = 'buffer'"),
    ("host-write", "memory = 'buffer'\nbytes = 1"),
    ("driver-read", "memory = 'buffer'"),
    ("driver-write", "memory = 'buffer'\nbytes = 1"),
    ("fail-conversion", ""),
    ("refuse-conversions", "to = 'shared'"),
    ("fail-view", ""),
    ("fail-map", ""),
    ("fail-unmap", ""),
    ("heal", ""),
    ("protection", "state = 'shared'\ndevice = 'disk'"),
    ("mmap", "alloc = 'a'"),
    ("decide", "device = 'disk'\nsize = 4096"),
    // Others of some of them, that take other keys.
    ("sync-for-cpu", "alloc = 'a'"),
    ("sync-for-device", "alloc = 'a'"),
    ("protection", "memory = 'buffer'\ndevice = 'disk'"),
    ("decide", "device = 'disk'\noperation = 'alloc'\nsize = 4096"),
    ("decide", "device = 'disk'\noperation = 'free'"),
    ("decide", "device = 'disk'\nmemory = 'buffer'"),
    ("check", ""),
];

/// Values that the table of ops names.
const VALUES: &[&str] = &[
    "coherent",
    "pages",
    "non-contiguous",
    "pool",
    "slots",
    "ram",
    "trust",
    "to",
    "shared",
    "private",
    "unchanged",
    "in-doubt",
    "error",
    "says = \"ok\"",
    "write-back",
    "write-combine",
    "uncached",
    "map",
    "unmap",
    "sync",
    "alloc",
    "attach",
    "free",
    "mmap",
    "unlocated",
    "late",
    "plan",
    "bound = false",
    "AS",
    "AS.0",
    "AS.1",
];

/// Things that steps touch, each with one: not every op takes each.
const TARGETS: &[(&str, &str)] = &[
    ("map", "'m'"),
    ("alloc", "'a'"),
    ("mapping", "'p'"),
    ("memory", "'buffer'"),
    ("pool", "'pool'"),
    ("address", "0x4020_0000"),
];

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cases.md");
    std::fs::read_to_string(path).unwrap()
}

fn things() -> String {
    THINGS.replace("PLATFORM", "tdx")
}

fn with_step(op: &str, more: &str) -> String {
    let (_, step) = STEPS.iter().find(|(name, _)| *name == op).unwrap_or(&("", ""));
    format!("{}[[step]]\nop = '{op}'\n{step}\n{more}\n", things())
}

/// All keys that the reader asks a step for, whatever else it has.
fn keys_of(op: &str) -> Words {
    let steps = STEPS.iter().filter(|(name, _)| *name == op);
    let known = steps
        .map(|(_, step)| known(&format!("{}[[step]]\nop = '{op}'\n{step}\nzzz = 1\n", things())));
    &known.fold(Words::new(), |all, more| &all | &more) - &of_all()
}

/// What the reader knows in place of the one thing that it does not.
fn known(text: &str) -> Words {
    let Err(wrong) = read_file("a.toml", text) else { panic!("all is known:\n{text}") };
    let wrong = wrong.to_string();
    assert!(wrong.contains("zzz"), "{wrong}\n{text}");
    let known = wrong.split_once("(known: ").and_then(|(_, rest)| rest.split_once(')'));
    let all = known.map_or("", |(all, _)| all);
    all.split(", ").filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The words between backticks.
fn quoted(text: &str) -> Words {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The part of the page below a heading, as far as the next one.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let (_, rest) =
        page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{heading}"));
    let end = ["\n## ", "\n### "].iter().filter_map(|next| rest.find(next)).min();
    &rest[..end.unwrap_or(rest.len())]
}

/// The cells of a section's table, row by row, without its head.
fn rows(section: &str) -> Vec<Vec<&str>> {
    let lines = section.lines().filter(|line| line.starts_with("| "));
    let cells = lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect());
    cells.skip(1).collect()
}

/// The keys in the first column.
fn keys(section: &str) -> Words {
    rows(section).iter().flat_map(|row| quoted(row[0])).collect()
}

fn set(words: &[&str]) -> Words {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Keys of every step, whatever its op.
fn of_all() -> Words {
    set(&["op", "label", "only", "cpu", "expect"])
}

#[test]
fn every_key_of_the_tables_is_named_and_every_named_one_accepted() {
    let page = page();
    let put = |after: &str| things().replacen(after, &format!("{after}\nzzz = 1"), 1);
    for (heading, after) in [
        ("### `[machine]`", "platform = \"tdx\""),
        ("### `[[pool]]`", "label = \"guest-shared\""),
        ("### `[[device]]`", "name = \"disk\""),
        ("### `[[memory]]`", "name = \"buffer\""),
    ] {
        assert_eq!(keys(section(&page, heading)), known(&put(after)), "{heading}");
    }
    let tables = set(&["machine", "pool", "device", "memory", "step", "end"]);
    let case = keys(section(&page, "## The case"));
    assert_eq!(&case | &tables, known(&put("source = \"own\"")));
    let matrix = format!("{}[[matrix]]\nentry = 'a'\nzzz = 1", things());
    let told = quoted(section(&page, "## Matrices").split_once("An entry overrides").unwrap().1);
    let told: Words = told.iter().map(|word| word.split('.').next().unwrap().to_owned()).collect();
    let accepted = known(&matrix);
    assert!(accepted.iter().all(|key| told.contains(key) || key == "entry"), "{accepted:?}");
    let end = known(&format!("{}[end]\nzzz = 1", things()));
    let told = &quoted(section(&page, "### `[end]`")) | &keys(section(&page, "### `expect`"));
    let told: Words = told.iter().map(|word| word.split(' ').next().unwrap().to_owned()).collect();
    assert!(end.is_subset(&told), "{:?}", &end - &told);
}

/// The defaults of the tables are values of their keys, and saying one changes nothing.
#[test]
fn every_default_is_one() {
    let page = page();
    let whole = |text: &str| {
        let cases = read_file("a.toml", text).unwrap_or_else(|wrong| panic!("{wrong}"));
        // Without the places, which differ.
        let told = format!("{:?}", cases[0]);
        told.split("Place(")
            .map(|part| part.split_once(')').map_or(part, |cut| cut.1))
            .collect::<String>()
    };
    let base = whole(&things());
    let mut told = 0;
    for (heading, after) in [
        ("### `[machine]`", "platform = \"tdx\""),
        ("### `[[pool]]`", "label = \"guest-shared\""),
        ("### `[[device]]`", "name = \"disk\""),
        ("### `[[memory]]`", "name = \"buffer\""),
    ] {
        for row in rows(section(&page, heading)) {
            let names: Vec<&str> = row[0].split('`').skip(1).step_by(2).collect();
            let values: Vec<&str> =
                row[1].split(", ").map(|value| value.trim_matches('`')).collect();
            let values = if names.len() == 1 { vec![row[1].trim_matches('`')] } else { values };
            for (at, name) in names.iter().enumerate() {
                let value = *values.get(at).unwrap_or(&values[0]);
                let literal = value.starts_with('{') || value.parse::<u64>().is_ok();
                let literal = literal || matches!(value, "true" | "false");
                let word = row[1].contains(&format!("`{value}`")) && !value.starts_with('[');
                if !literal && !word || *name == "really" || *name == "open" {
                    continue;
                }
                let value = if literal { value.to_owned() } else { format!("'{value}'") };
                let line = format!("{after}\n{name} = {value}");
                assert_eq!(whole(&things().replacen(after, &line, 1)), base, "{name} = {value}");
                told += 1;
            }
        }
    }
    assert!(told > 15, "{told}");
}

#[test]
fn every_op_is_named_with_what_it_takes_and_what_comes_of_it() {
    let page = page();
    let rows = rows(section(&page, "## Steps"));
    let named: Words =
        rows.iter().flat_map(|row| quoted(row[0])).filter(|op| op != "finish").collect();
    let ops = known(&with_step("zzz", ""));
    assert_eq!(named, ops);
    assert_eq!(STEPS.iter().map(|(op, _)| (*op).to_owned()).collect::<Words>(), ops);
    let checks = keys(section(&page, "### `expect`"));
    let (mut takes, mut wrong) = (Words::new(), Vec::new());
    let mut more = |words: Words, what: String| {
        if !words.is_empty() {
            wrong.push(format!("{what}: {words:?}"));
        }
    };
    for row in &rows {
        // "the same, and …": what the row above says.
        takes =
            if row[1].starts_with("the same") { &takes | &quoted(row[1]) } else { quoted(row[1]) };
        let (outcomes, facts) = row[2].split_once(';').unwrap_or((row[2], ""));
        let outcomes = outcomes.split_once(':').map_or(outcomes, |(before, _)| before);
        let mut accepted = Words::new();
        for op in quoted(row[0]).iter().filter(|op| *op != "finish") {
            let keys = keys_of(op);
            // What is asked for only to be refused is not taken.
            let refused = |key: &str| {
                TARGETS.iter().find(|(target, _)| *target == key).is_some_and(|(_, thing)| {
                    let write = if op.ends_with("write") { "\nbytes = 1" } else { "\nsize = 1" };
                    let device = if op.starts_with("host") { "" } else { "\ndevice = 'disk'" };
                    let step = format!("op = '{op}'\n{key} = {thing}{device}{write}");
                    read_file("a.toml", &format!("{}[[step]]\n{step}\n", things())).is_err()
                })
            };
            let untold: Words = (&keys - &takes).into_iter().filter(|key| !refused(key)).collect();
            more(untold, format!("{op} takes too"));
            for outcome in quoted(outcomes) {
                let text = with_step(op, &format!("expect = {{ outcome = '{outcome}' }}"));
                let read = read_file("a.toml", &text).map(|_| ());
                // Of several ops in a row one has it.
                let any = quoted(row[0]).len() > 1;
                assert!(read.is_ok() || any, "{op}: {outcome}");
            }
            let known_outcomes = known(&with_step(op, "expect = { outcome = 'zzz' }"));
            let told = quoted(outcomes);
            more(&known_outcomes - &told, format!("{op} comes to too"));
            let expects = known(&with_step(op, "expect = { zzz = 1 }"));
            let facts = &(&expects - &checks) - &set(&["outcome", "bytes", "bytes-not"]);
            let told = quoted(row[2]);
            more(&facts - &told, format!("{op} has too"));
            accepted = &(&accepted | &keys) | &(&expects | &known_outcomes);
        }
        // What is named besides is a value of something that is taken, or a note.
        let (told, values) = (&takes | &quoted(facts), set(VALUES));
        let rest = &(&told - &accepted) - &values;
        more(rest, format!("{:?} names what is nothing", row[0]));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_reason_and_word_of_an_expectation_is_named_and_accepted() {
    let page = page();
    let expect = section(&page, "### `expect`");
    let named = |key: &str| -> Words {
        let row = rows(expect).into_iter().find(|row| quoted(row[0]).contains(key)).unwrap();
        quoted(row[1])
    };
    let of = |op, inside: &str| known(&with_step(op, &format!("expect = {{ {inside} }}")));
    assert_eq!(named("events"), of("check", "events = ['zzz']"));
    assert_eq!(named("books"), of("check", "books = { buffer = 'zzz' }"));
    assert!(of("check", "states = { buffer = 'zzz' }").is_subset(&named("states")));
    let counters = of("check", "counters = { disk = { zzz = 1 } }");
    assert!(
        counters.iter().all(|counter| expect.contains(&format!("{counter} ="))),
        "{counters:?}"
    );
    assert_eq!(named("rules"), of("map", "rules = ['zzz']"));
    // Reasons stand in paragraphs of their own.
    let reasons = |start: &str| -> Words {
        let (_, rest) =
            expect.split_once(&format!("\n{start}")).unwrap_or_else(|| panic!("{start}"));
        quoted(rest.split("\n\n").next().unwrap().split_once(':').unwrap().1)
    };
    for (start, op, outcome) in [
        ("Reasons of `direct`", "map", "direct"),
        ("Reasons of `bounce`", "map", "bounce"),
        ("Reasons of `refuse`", "map", "refuse"),
        ("Reasons of conversions", "share", "refuse"),
        ("Reasons of `bind`", "bind", "refuse"),
    ] {
        let accepted = of(op, &format!("outcome = '{outcome}', reason = 'zzz'"));
        assert_eq!(reasons(start), accepted, "{start}");
    }
}
