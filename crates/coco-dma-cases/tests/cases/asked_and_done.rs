//! What `explain` says is what the layer does: random questions, each asked of `plan` alone and done on
//! a machine that is built for it, come to one outcome, for one reason, with one pool and one address.

use coco_dma_cases::{Heed, Path, answer, read_file, run_with};

/// Questions of one run: a thousand, or as many as `QUESTIONS` says.
fn count() -> u64 {
    let given = std::env::var("QUESTIONS").ok().and_then(|count| count.parse().ok());
    given.unwrap_or(1000)
}

/// A generator that a seed decides (SplitMix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        let index = usize::try_from(self.next() % u64::try_from(all.len()).unwrap()).unwrap();
        all[index]
    }

    /// Once in `n` times.
    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// A machine with a device, pools and a buffer, and a question about it: the text of a case as it is
/// done, and as it is asked.
struct Question {
    done: String,
    asked: String,
}

const PLATFORMS: [&str; 11] =
    ["open", "sme", "sev", "snp", "snp-vtom", "tdx", "cca", "pkvm", "hyperv", "s390", "pef"];

fn question(draw: &mut Draw) -> Question {
    let platform = draw.of(&PLATFORMS);
    let op = draw.of(&["map", "map", "alloc", "protection"]);
    // A question about pages knows nothing of RAM, which therefore is in reach of whatever reaches
    // anything.
    let bases = [0x1000_0000u64, 0x4000_0000, 0x1_0000_0000];
    let base = if op == "alloc" { 0x1000_0000 } else { draw.of(&bases) };
    let at = |offset: u64| format!("{:#x}", base + offset);
    let pages = !draw.one_in(4);
    let mut machine = format!(
        "platform = '{platform}'\nram = [{{ at = {}, size = '4MiB' }}]\npages = {pages}\n",
        at(0)
    );
    let page = draw.of(&[4096u64, 4096, 0x4000]);
    if page != 4096 {
        machine += &format!("iommu-page = {page}\n");
    }
    let mut pools = String::new();
    let mut own = Vec::new();
    let labels = match platform {
        "open" => ["ordinary", "ordinary", "guest-shared"],
        "sme" => ["ordinary", "host-plain", "ordinary"],
        _ => ["guest-shared", "guest-private", "guest-shared"],
    };
    let mut restricted = false;
    for index in 0..draw.next() % 4 {
        let label = draw.of(&labels);
        let size = draw.of(&[0x1000u64, 0x4000, 0x1_0000]);
        pools += &format!("[[pool]]\nname = 'p{index}'\nlabel = '{label}'\n");
        pools += &format!("at = {}\nsize = {size}\n", at(0x10_0000 + index * 0x2_0000));
        let purpose = draw.of(&["all", "all", "all", "streaming", "reserve", "coherent"]);
        if draw.one_in(2) {
            own.push(format!("'p{index}'"));
            if !restricted && draw.one_in(4) {
                restricted = true;
                pools += "restricted = true\n";
            }
        }
        pools += &format!("purpose = '{purpose}'\n");
        if draw.one_in(3) {
            pools += &format!("node = {}\n", draw.next() % 2);
        }
    }
    let mut device = format!("pools = [{}]\n", own.join(", "));
    if draw.one_in(3) && matches!(platform, "snp" | "snp-vtom" | "tdx" | "cca" | "pkvm" | "hyperv")
    {
        device += "trust = 'accepted'\n";
    }
    if draw.one_in(2) {
        device += &format!("mask = {}\n", draw.of(&[29u32, 30, 31, 32, 33, 40, 47, 48, 52]));
    }
    for (odds, line) in [
        (6, "coherent = false\n"),
        (6, "external-facing = true\n"),
        (6, "force-bounce = true\n"),
        (6, "node = 1\n"),
        (8, "segment = 8192\n"),
        (8, "boundary = 4096\n"),
        (8, "boundary = 0x1_0000\n"),
        (8, "min-align-mask = 0xfff\n"),
    ] {
        if draw.one_in(odds) && !(line.starts_with("boundary") && device.contains("boundary")) {
            device += line;
        }
    }
    if draw.one_in(5) {
        device += &format!("bus-limit = {:#x}\n", base + draw.of(&[0x1f_ffffu64, 0x3f_ffff]));
    }
    if draw.one_in(4) {
        let [first, second] = [at(0), at(0x20_0000)];
        let next = draw.of(&[0x20_0000u64, 0x60_0000]);
        device += &format!(
            "bus-ranges = [{{ cpu = {first}, bus = 0x200_0000, size = '2MiB' }}, \
             {{ cpu = {second}, bus = {:#x}, size = '2MiB' }}]\n",
            0x200_0000 + next
        );
    }
    let iommu = draw.of(&["none", "none", "passthrough", "translated"]);
    device += &format!("iommu = '{iommu}'\n");
    let state = match platform {
        "open" => draw.of(&["ordinary", "ordinary", "mmio", "peer", "unlocated"]),
        "sme" => {
            draw.of(&["encrypted", "plain", "mixed", "untracked", "mmio", "peer", "unlocated"])
        }
        _ => draw.of(&[
            "private",
            "private",
            "shared",
            "shared",
            "mixed",
            "unaccepted",
            "foreign-shared",
            "foreign-private",
            "untracked",
            "mmio",
            "peer",
            "unlocated",
        ]),
    };
    let size = draw.of(&[64u64, 512, 4096, 4097, 0x2000, 0x3000, 0x1_0000, 0x1_1000]);
    let size = if state == "mixed" { size.max(0x2000) } else { size };
    let offset = draw.of(&[0u64, 0, 0, 16, 0x100, 0x800, 0xfc0]);
    let place = draw.of(&[0x1f_f000u64, 0x28_0000, 0x30_0000]) + offset;
    // Pages of an IOMMU that are longer than granules show neighbours, of which the question knows
    // nothing.
    let (size, place) = match page {
        4096 => (size, place),
        page => (size.next_multiple_of(page), place & !(page - 1)),
    };
    let mut memory = format!("size = {size}\nstate = '{state}'\n");
    if state != "unlocated" {
        memory += &format!("at = {}\n", at(place));
    }
    let kinds = ["mmio", "cc-shared", "require-coherent", "skip-cpu-sync", "write-combine"];
    let mut attrs: Vec<&str> = kinds.into_iter().filter(|_| draw.one_in(7)).collect();
    // The layer learns from the driver alone that memory is registers.
    if state == "mmio" && !attrs.contains(&"mmio") {
        attrs.push("mmio");
    }
    let attrs: Vec<String> = attrs.iter().map(|attr| format!("'{attr}'")).collect();
    let attrs = format!("attrs = [{}]\n", attrs.join(", "));
    let direction = draw.of(&["to", "from", "both"]);
    let context = draw.of(&["blocking", "atomic"]);
    let kind = draw.of(&["coherent", "coherent", "pages"]);
    let align = draw.of(&[1u64, 1, 1, 0x4000, 0x1_0000]);
    let takes = match op {
        "map" => format!("memory = 'buffer'\ndirection = '{direction}'\n{attrs}"),
        "alloc" => {
            let attrs = draw.of(&["", "", "attrs = ['write-combine']\n", "attrs = ['mmio']\n"]);
            let takes = format!("size = {size}\ncontext = '{context}'\nkind = '{kind}'\n");
            format!("{takes}align = {align}\n{attrs}")
        }
        _ => format!("memory = 'buffer'\n{attrs}"),
    };
    let text = |machine: &str, step: &str| {
        format!(
            "name = 'q'\ntitle = 'A question'\nsource = 'own'\n[machine]\n{machine}{pools}\
             [[device]]\nname = 'nic'\n{device}[[memory]]\nname = 'buffer'\n{memory}\
             [[step]]\n{step}device = 'nic'\n{takes}"
        )
    };
    let plan_only = format!("{machine}plan-only = true\n");
    let operation = if op == "protection" { "mmap" } else { op };
    Question {
        done: text(&machine, &format!("op = '{op}'\n")),
        asked: text(&plan_only, &format!("op = 'decide'\noperation = '{operation}'\n")),
    }
}

/// The facts of an answer that both have, as a story tells them.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    head: String,
    facts: Vec<(String, String)>,
}

/// `HEAD, KEY VALUE, KEY VALUE`.
fn parsed(told: &str) -> Came {
    let mut parts = told.split(", ");
    let head = parts.next().unwrap_or("").to_owned();
    let facts = parts.filter_map(|part| part.split_once(' '));
    let wanted = ["address", "pool", "mark", "cache", "from", "length"];
    let facts = facts.filter(|(key, _)| wanted.contains(key));
    Came { head, facts: facts.map(|(key, value)| (key.to_owned(), value.to_owned())).collect() }
}

/// What differs between a question that was asked and the same that was done; none where it could not be
/// done, because the layer does not bind such a device.
fn difference(question: &Question) -> Option<Result<(), String>> {
    let case = |text: &str| {
        let cases = read_file("question.toml", text);
        cases.unwrap_or_else(|wrong| panic!("{wrong}\n{text}")).remove(0)
    };
    let done = run_with(&case(&question.done), Heed::Seen, &[Path::Slow]);
    let Some(done) = done.story.first() else {
        let cannot =
            ["a device that is bound", "a pool that grows"].contains(&done.expected.as_str());
        let text = format!("nothing was done: {}, {}", done.expected, done.got);
        return if cannot { None } else { Some(Err(text)) };
    };
    let asked = case(&question.asked);
    let outcome = run_with(&asked, Heed::Seen, &[Path::Slow]);
    let Some(told) = outcome.story.first() else {
        return Some(Err(format!("nothing was answered: {}", outcome.got)));
    };
    let (mut asked_came, mut done_came) = (parsed(&told.outcome), parsed(&done.outcome));
    // The same question without a machine at all.
    let direct = answer(&asked).map(|answer| (answer.outcome, answer.address));
    let address = asked_came.facts.iter().find(|(key, _)| key == "address");
    let address =
        address.map(|(_, at)| u64::from_str_radix(at.trim_start_matches("0x"), 16).unwrap());
    let word = asked_came.head.split(' ').next().unwrap_or("");
    if direct != Some((outcome_word(word), address)) {
        return Some(Err(format!("{direct:?}, where the story has {}", told.outcome)));
    }
    // What is done says no reason of what went well but of maps; addresses that a domain or a source
    // of pages gives are not plan's.
    if !done_came.head.contains('(') {
        asked_came.head = word.to_owned();
    }
    if address.is_none() {
        done_came.facts.retain(|(key, _)| key != "address");
    }
    let keys = |came: &Came| came.facts.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let (of_asked, of_done) = (keys(&asked_came), keys(&done_came));
    asked_came.facts.retain(|(key, _)| of_done.contains(key) || key == "address");
    done_came.facts.retain(|(key, _)| of_asked.contains(key) || key == "pool");
    asked_came.facts.sort();
    done_came.facts.sort();
    if asked_came == done_came {
        return Some(Ok(()));
    }
    Some(Err(format!("asked: {}\ndone:  {}", told.outcome, done.outcome)))
}

fn outcome_word(word: &str) -> &'static str {
    let all = ["direct", "bounce", "refuse", "allocate", "done"];
    all.into_iter().find(|known| *known == word).unwrap_or("")
}

#[test]
fn what_is_asked_is_what_is_done() {
    let (count, workers) = (count(), 4);
    let (mut compared, mut wrong) = (0, Vec::new());
    std::thread::scope(|scope| {
        let work = |worker: u64| {
            let (mut compared, mut wrong) = (0u64, Vec::new());
            for seed in (worker..count).step_by(usize::try_from(workers).unwrap()) {
                let question = question(&mut Draw(seed));
                match difference(&question) {
                    None => {}
                    Some(Ok(())) => compared += 1,
                    Some(Err(text)) => {
                        wrong.push(format!("seed {seed}: {text}\n{}", question.done))
                    }
                }
            }
            (compared, wrong)
        };
        let handles: Vec<_> =
            (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        for handle in handles {
            let (some, more) = handle.join().unwrap();
            compared += some;
            wrong.extend(more);
        }
    });
    let first: Vec<String> = wrong.iter().take(5).cloned().collect();
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), first.join("\n"));
    println!("{compared} of {count} questions were asked and done");
    assert!(compared >= count * 3 / 4, "only {compared} of {count} could be done");
}
