//! Broken files: each mistake is told with its place, and hostile numbers are told like any other.

use coco_dma_cases::{File, Loaded, read_file, run};

/// A good case, in which each test breaks one thing.
const GOOD: &str = r#"name = "good"
title = "Holds"
source = "own"
[machine]
platform = "tdx"
[[pool]]
name = "shared"
label = "guest-shared"
at = 0x4010_0000
size = "64KiB"
[[device]]
name = "disk"
[[memory]]
name = "buffer"
at = 0x4020_0000
size = 4096
[[step]]
op = "map"
device = "disk"
memory = "buffer"
as = "m"
expect = { outcome = "bounce", reason = "private-memory" }
[[step]]
op = "unmap"
map = "m"
"#;

/// The good case with `old` replaced, which has to stand in it.
fn broken(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replacen(old, new, 1)
}

fn mistake(text: &str) -> String {
    match read_file("a.toml", text) {
        Ok(cases) => panic!("{} cases, and no mistake", cases.len()),
        Err(wrong) => wrong.to_string(),
    }
}

#[test]
fn the_good_case_is_good() {
    let cases = read_file("a.toml", GOOD).unwrap();
    let outcome = run(&cases[0]);
    assert!(outcome.ok, "{} {}", outcome.expected, outcome.got);
}

#[test]
fn each_mistake_has_its_place_and_the_nearest_word() {
    let two_pools = "[[pool]]\nname = \"more\"\nlabel = \"guest-shared\"\nat = 0x4010_8000\n\
                     size = \"64KiB\"\n[[device]]";
    let mut wrong = Vec::new();
    for (old, new, place, said) in [
        // Wrong keys.
        ("label =", "lable =", "8:1", "did you mean 'label'?"),
        ("[machine]", "[mashine]", "4:2", "did you mean 'machine'?"),
        ("as = \"m\"", "az = \"m\"", "21:1", "did you mean 'as'"),
        ("size = 4096", "size = 4096\ncolour = 1", "17:1", "unknown key of the memory 'colour'"),
        ("reason =", "raison =", "22:32", "did you mean 'reason'"),
        // Wrong types.
        ("platform = \"tdx\"", "platform = 7", "5:12", "'platform' is a text, not a number"),
        ("size = 4096", "size = [1]", "16:8", "a number or a size, not a list"),
        ("size = 4096", "size = 1.5", "16:8", "no numbers with a point"),
        ("size = 4096", "size = -1", "16:8", "no number from 0 to 2^64-1"),
        ("size = 4096", "size = \"4KB\"", "16:8", "no number from 0 to 2^64-1"),
        ("size = 4096", "size = \"17179869184GiB\"", "16:8", "no number from 0 to 2^64-1"),
        // No TOML.
        ("name = \"disk\"", "name = disk", "12:8", "no TOML"),
        // Wrong words.
        ("\"tdx\"", "\"tdz\"", "5:12", "unknown platform 'tdz'; did you mean 'tdx'?"),
        ("guest-shared", "guest_shared", "8:9", "did you mean 'guest-shared'?"),
        ("op = \"unmap\"", "op = \"unmaap\"", "24:6", "did you mean 'unmap'?"),
        ("device = \"disk\"", "device = \"disc\"", "19:10", "did you mean 'disk'?"),
        ("memory = \"buffer\"", "memory = \"bufer\"", "20:10", "did you mean 'buffer'?"),
        ("map = \"m\"", "map = \"n\"", "25:7", "did you mean 'm'?"),
        ("source = \"own\"", "source = \"hearsay\"", "3:10", "a source is mid:"),
        // Memory that cannot be.
        ("at = 0x4020_0000", "at = 0x4010_f000", "15:6", "overlaps 'shared'"),
        ("[[device]]", two_pools, "14:6", "'more' at 0x40108000..=0x40117fff overlaps 'shared'"),
        ("at = 0x4020_0000", "at = 0x9000_0000", "15:6", "is beyond the RAM, which is"),
        ("at = 0x4020_0000", "at = 0x40ff_ffff", "15:6", "is beyond the RAM"),
        ("at = 0x4020_0000", "at = 0xffff_ffff_ffff_ffff", "15:6", "are empty or wrap"),
        ("size = 4096", "size = 0", "15:6", "are empty or wrap"),
        ("size = 4096", "size = 0xffff_ffff_ffff_ffff", "15:6", "are empty or wrap"),
        ("size = \"64KiB\"", "size = 0", "9:6", "is empty or wraps"),
        ("size = \"64KiB\"", "size = 0xffff_ffff_ffff_ffff", "9:6", "is empty or wraps"),
        ("size = \"64KiB\"", "size = 5000", "9:6", "not made of whole granules"),
        ("\"tdx\"", "\"tdx\"\ngranule = 3", "4:1", "no such machine: a granule"),
        ("\"tdx\"", "\"tdx\"\nram = [{ at = 0, size = \"1TiB\" }]", "6:8", "at most 256 MiB"),
        ("\"tdx\"", "\"tdx\"\nram = [{ at = 1, size = 4096 }]", "6:8", "whole granules"),
        // Devices that cannot be.
        ("name = \"disk\"", "name = \"disk\"\nmask = 65", "13:8", "1 to 64 bits"),
        ("name = \"disk\"", "name = \"disk\"\ncache-line = 48", "13:14", "a power of two"),
        ("name = \"disk\"", "name = \"disk\"\npools = [\"own\"]", "13:10", "unknown pool 'own'"),
        ("\"64KiB\"", "\"64KiB\"\nrestricted = true", "6:1", "belongs to a device"),
        // Expectations that cannot hold.
        (
            "\"private-memory\"",
            "\"no-pool\"",
            "22:41",
            "this cannot hold: unknown reason of 'bounce'",
        ),
        ("\"bounce\"", "\"refuse\"", "22:41", "this cannot hold"),
        (
            "reason =",
            "states = { buffer = \"plain\" }, reason =",
            "22:52",
            "no memory is plain here",
        ),
        ("reason =", "pool = \"sharde\", reason =", "22:39", "did you mean 'shared'?"),
        (
            "outcome = \"bounce\", reason = \"private-memory\"",
            "outcome = \"refuse\", address = 1",
            "22:42",
            "this cannot hold: 'refuse' has no 'address'",
        ),
        (
            "reason =",
            "address-low = { mask = 0xff, is = 0x100 }, reason =",
            "22:46",
            "this cannot hold",
        ),
    ] {
        let told = mistake(&broken(old, new));
        if !told.starts_with(&format!("a.toml:{place}: ")) || !told.contains(said) {
            wrong.push(format!("{new:?}: {told}, not at {place}, or not: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn columns_are_characters() {
    let told = mistake("title = \"é\"\nname = \"ä\"\n");
    assert!(told.starts_with("a.toml:2:8: "), "{told}");
    assert!(mistake("").starts_with("a.toml:1:1: "));
    let told = mistake(&broken("title = \"Holds\"", "title = { \"é\" = 1, x = 0.5 }"));
    assert!(told.starts_with("a.toml:2:24: "), "{told}");
}

#[test]
fn numbers_of_any_size_are_told_or_run_and_never_a_panic() {
    let huge = ["0", "1", "4095", "0x7fff_ffff_ffff_ffff", "0xffff_ffff_ffff_ffff"];
    let keys = [
        ("name = \"disk\"", ["bus-limit", "boundary", "segment", "min-align-mask", "cache-line"]),
        ("\"tdx\"", ["seed", "quarantine-limit", "granule", "vtom", "gpaw"]),
        ("memory = \"buffer\"", ["offset", "size", "written", "skip", "tries"]),
    ];
    for (after, keys) in keys {
        for key in keys {
            for number in huge {
                let text = broken(after, &format!("{after}\n{key} = {number}"));
                if let Ok(cases) = read_file("a.toml", &text) {
                    let outcome = run(&cases[0]);
                    assert!(!outcome.got.contains("panic"), "{key} {number}: {}", outcome.got);
                    assert!(!outcome.got.contains("after"), "{key} {number}: {}", outcome.got);
                }
            }
        }
    }
    let decide = |what: &str| {
        format!(
            "name = \"d\"\ntitle = \"t\"\nsource = \"own\"\n\
             machine = {{ platform = \"cca\", plan-only = true }}\ndevice = [{{ name = \"x\", \
             bus-ranges = [{{ cpu = 0, bus = 0xffff_0000_0000_0000, size = 4096 }}] }}]\n\
             [[step]]\nop = \"decide\"\ndevice = \"x\"\n{what}\n"
        )
    };
    for at in huge {
        for size in huge {
            let cases = read_file("a.toml", &decide(&format!("at = {at}\nsize = {size}"))).unwrap();
            let outcome = run(&cases[0]);
            assert!(!outcome.got.contains("panic"), "{at} {size}: {}", outcome.got);
        }
    }
}

#[test]
fn a_thousand_pools_are_too_many() {
    let pool = |number: usize| {
        let at = 0x4030_0000 + number * 4096;
        format!(
            "[[pool]]\nname = \"p{number}\"\nlabel = \"guest-shared\"\nat = {at}\nsize = 4096\n"
        )
    };
    let many = |count| (0..count).map(pool).collect::<String>();
    let told = mistake(&broken("[[device]]", &format!("{}[[device]]", many(1000))));
    assert!(told.contains("pool 65 of 1001; a case has at most 64"), "{told}");
    let told = mistake(&broken("[[device]]", &format!("{}[[device]]", many(8))));
    assert!(told.contains("would have 9 pools"), "{told}");
    assert!(told.starts_with("a.toml:"), "{told}");
}

#[test]
fn a_long_file_is_told_in_time() {
    let long = broken("title = \"Holds\"", &format!("title = \"{}\"", "x".repeat(2 << 20)));
    assert!(mistake(&long).contains("longer than 1 MiB"));
    let steps = "[[step]]\nop = \"check\"\n".repeat(1001);
    assert!(mistake(&format!("{GOOD}{steps}")).contains("at most 1000"));
    let nested = format!("{GOOD}x = {}{}\n", "[".repeat(5000), "]".repeat(5000));
    mistake(&nested);
    let wide = format!("{GOOD}x = [{}]\n", "1,".repeat(400_000));
    assert!(mistake(&wide).contains("unknown key of the step 'x'"));
}

#[test]
fn two_cases_have_two_names() {
    let files = ["a", "b"].map(|name| File { name: name.to_owned(), text: GOOD.to_owned() });
    let loaded = Loaded::read(&files);
    assert_eq!(loaded.wrong.len(), 1);
    assert!(loaded.wrong[0].to_string().contains("the name 'good' is taken by the case at a:1:8"));
}

#[test]
fn a_matrix_overrides_what_there_is() {
    let matrix = |entry: &str| mistake(&format!("{GOOD}[[matrix]]\n{entry}"));
    assert!(matrix("entry = \"a b\"").contains("letters, digits and dashes"));
    assert!(matrix("name = \"x\"").contains("needs 'entry'"));
    assert!(matrix("entry = \"x\"\ndevice.disc.mask = 3").contains("did you mean 'disk'?"));
    assert!(
        matrix("entry = \"x\"\nmaschine.platform = \"cca\"").contains("did you mean 'machine'")
    );
    assert!(matrix("entry = \"x\"\nmachine.platform = \"mips\"").contains("unknown platform"));
    assert!(matrix("entry = \"x\"\nstep.map.size = 1").contains("unknown label of a step 'map'"));
    let twice = "entry = \"x\"\n[[matrix]]\nentry = \"x\"";
    assert!(matrix(twice).contains("an entry's name is its own"));
}

#[test]
fn a_mistake_in_an_entry_names_the_entry() {
    let matrix = |entries: &str| mistake(&format!("{GOOD}[[matrix]]\n{entries}"));
    let good = "entry = \"good\"\n[[matrix]]\nentry = \"bad\"\n";
    for bad in [
        // Of the entry's own keys, of what it overrides, and of the case that comes of both: the last
        // has its place in the file's own part.
        "maschine.platform = \"cca\"",
        "device.disc.mask = 3",
        "machine.platform = \"mips\"",
        "memory.buffer.state = \"encrypted\"",
    ] {
        let told = matrix(&format!("{good}{bad}"));
        assert!(told.ends_with("[matrix entry bad]"), "{told}");
    }
    assert!(!mistake(&GOOD.replace("tdx", "mips")).contains("matrix"));
}
