//! The question as the text of a case: `explain` has no words of its own, and every mistake is told by
//! whoever reads cases. Each line knows the option that it came from.

use coco_dma_cases::Case;
use coco_dma_cases::Wrong;
use coco_dma_cases::read_file;

use super::ExplainArgs;
use crate::failure::Failure;

/// The size of a pool that was given without one.
const POOL_SIZE: &str = "64MiB";

/// What may stand before a pool's label, and the line of the case that it stands for.
const PREFIXES: [(&str, &str); 5] = [
    ("restricted", "restricted = true"),
    ("machine", ""),
    ("coherent", "purpose = \"coherent\""),
    ("streaming", "purpose = \"streaming\""),
    ("reserve", "purpose = \"reserve\""),
];

/// A case that is being written.
#[derive(Debug, Default)]
pub(super) struct Draft {
    lines: Vec<(String, &'static str)>,
}

/// Why a draft is no case: the option that it comes from, if it comes from one.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) option: &'static str,
    text: String,
}

impl Mistake {
    /// One that no option made.
    pub(super) fn of_nothing(text: &str) -> Self {
        Self { option: "", text: text.to_owned() }
    }
}

impl From<Mistake> for Failure {
    fn from(mistake: Mistake) -> Self {
        let Mistake { option, text } = mistake;
        let colon = if option.is_empty() { "" } else { ": " };
        Self::Usage(format!("{option}{colon}{text}; see --help"))
    }
}

impl Draft {
    /// The question of these arguments, on this platform and for a device of this trust.
    pub(super) fn new(
        args: &ExplainArgs,
        platform: &str,
        trust: Option<&str>,
    ) -> Result<Self, Mistake> {
        let mut draft = Self::default();
        draft.machine(args, platform);
        let mut own = Vec::new();
        for pool in &args.pools {
            draft.pool(pool, &mut own)?;
        }
        draft.device(args, trust, &own)?;
        draft.step(args);
        Ok(draft)
    }

    /// The case, with its name and title in front.
    pub(super) fn text(&self, title: &str, expect: &str) -> String {
        let lines: Vec<&str> = self.lines.iter().map(|(line, _)| line.as_str()).collect();
        format!("{}{}\n{expect}", head(title), lines.join("\n"))
    }

    pub(super) fn read(&self) -> Result<Case, Mistake> {
        let title = "A question";
        let mistake = |wrong: &Wrong| {
            let (line, _) = wrong.place.line_and_column();
            let line = line.checked_sub(head(title).lines().count() + 1);
            let option =
                line.and_then(|line| self.lines.get(line)).map_or("", |(_, option)| option);
            Mistake { option, text: wrong.text.clone() }
        };
        let cases = read_file("the question", &self.text(title, "")).map_err(|w| mistake(&w))?;
        cases.into_iter().next().ok_or_else(|| Mistake::of_nothing("there is no question"))
    }

    fn line(&mut self, option: &'static str, line: impl Into<String>) {
        self.lines.push((line.into(), option));
    }

    /// A key, where the option was given.
    fn key(&mut self, option: &'static str, key: &str, given: Option<&str>) {
        if let Some(given) = given {
            self.line(option, format!("{key} = {}", value(given)));
        }
    }

    fn flag(&mut self, option: &'static str, key: &str, given: bool) {
        if given {
            self.line(option, format!("{key} = true"));
        }
    }

    fn machine(&mut self, args: &ExplainArgs, platform: &str) {
        self.line("", "[machine]");
        self.key("--platform", "platform", Some(platform));
        self.key("--c-bit", "c-bit", args.c_bit.as_deref());
        self.key("--ipa-bits", "ipa-bits", args.ipa_bits.as_deref());
        self.key("--gpaw", "gpaw", args.gpaw.as_deref());
        self.key("--vtom", "vtom", args.vtom.as_deref());
        self.key("--granule", "granule", args.granule.as_deref());
        self.key("--iommu-page", "iommu-page", args.iommu_page.as_deref());
        self.line("", "plan-only = true");
    }

    /// `PREFIX:LABEL@ADDR+SIZE,node=N`, of which all but label and address may be left out.
    fn pool(&mut self, text: &str, own: &mut Vec<String>) -> Result<(), Mistake> {
        let option = "--pool";
        let mistake = |text: String| Mistake { option, text };
        let (rest, node) = match text.split_once(",node=") {
            Some((rest, node)) => (rest, Some(node)),
            None => (text, None),
        };
        let (words, place) = rest.split_once('@').ok_or_else(|| {
            mistake(format!(
                "a pool is LABEL@ADDR or LABEL@ADDR+SIZE, as guest-shared@0x90000000, not '{text}'"
            ))
        })?;
        let (prefixes, label) = words.rsplit_once(':').unwrap_or(("", words));
        let (at, size) = place.split_once('+').unwrap_or((place, POOL_SIZE));
        self.line("", "");
        self.line("", "[[pool]]");
        self.key(option, "name", Some(text));
        self.key(option, "label", Some(label));
        self.key(option, "at", Some(at));
        self.key(option, "size", Some(size));
        self.key(option, "node", node);
        let prefixes: Vec<&str> = prefixes.split(':').filter(|_| words.contains(':')).collect();
        for prefix in &prefixes {
            let known = PREFIXES.iter().find(|(word, _)| word == prefix);
            let (_, line) = known.ok_or_else(|| {
                let words = PREFIXES.iter().map(|(word, _)| *word);
                mistake(crate::words::unknown("kind of pool", prefix, words))
            })?;
            if !line.is_empty() {
                self.line(option, *line);
            }
        }
        match (prefixes.contains(&"machine"), prefixes.contains(&"restricted")) {
            (true, true) => Err(mistake(format!(
                "a restricted pool is its device's, not the machine's: '{text}'"
            ))),
            (true, false) => Ok(()),
            (false, _) => {
                own.push(quoted(text));
                Ok(())
            }
        }
    }

    fn device(
        &mut self,
        args: &ExplainArgs,
        trust: Option<&str>,
        own: &[String],
    ) -> Result<(), Mistake> {
        self.line("", "");
        self.line("", "[[device]]");
        self.line("", "name = \"device\"");
        self.key("--trust", "trust", trust);
        self.key("--mask", "mask", args.mask.as_deref());
        self.key("--bus-limit", "bus-limit", args.bus_limit.as_deref());
        if !args.bus_range.is_empty() {
            let ranges = args.bus_range.iter().map(|range| bus_range(range));
            let ranges = ranges.collect::<Result<Vec<_>, _>>()?;
            self.line("--bus-range", format!("bus-ranges = [{}]", ranges.join(", ")));
        }
        self.key("--boundary", "boundary", args.boundary.as_deref());
        self.key("--segment", "segment", args.segment.as_deref());
        self.key("--min-align-mask", "min-align-mask", args.min_align_mask.as_deref());
        self.key("--cache-line", "cache-line", args.cache_line.as_deref());
        // What is mapped begins where its device takes it; what is allocated is made so.
        let align = args.align.as_deref().filter(|_| !args.is_of_allocation());
        self.key("--align", "align", align);
        self.key("--len-align", "len-align", args.len_align.as_deref());
        if let Some(coherent) = args.coherent {
            self.line("--coherent", format!("coherent = {coherent}"));
        }
        self.flag("--external-facing", "external-facing", args.external_facing);
        self.flag("--force-bounce", "force-bounce", args.force_bounce);
        self.key("--iommu", "iommu", args.iommu.as_deref());
        self.key("--node", "node", args.node.as_deref());
        if !own.is_empty() {
            self.line("--pool", format!("pools = [{}]", own.join(", ")));
        }
        Ok(())
    }

    fn step(&mut self, args: &ExplainArgs) {
        self.line("", "");
        self.line("", "[[step]]");
        self.line("", "op = \"decide\"");
        self.line("", "device = \"device\"");
        self.key("--operation", "operation", args.operation.as_deref());
        let at = args.phys.as_deref().filter(|_| !args.is_unlocated());
        self.key("--phys", "at", at);
        self.key("--size", "size", args.size.as_deref());
        self.key("--memory", "state", args.memory.as_deref());
        self.key("--direction", "direction", args.direction.as_deref());
        if !args.attrs.is_empty() {
            let attrs: Vec<String> = args.attrs.iter().map(|attr| quoted(attr)).collect();
            self.line("--attr", format!("attrs = [{}]", attrs.join(", ")));
        }
        self.key("--context", "context", args.context.as_deref());
        self.key("--kind", "kind", args.kind.as_deref());
        let align = args.align.as_deref().filter(|_| args.is_of_allocation());
        self.key("--align", "align", align);
        if let Some(pages) = args.pages {
            self.line("--pages", format!("pages = {pages}"));
        }
        self.flag("--revoked", "revoked", args.revoked);
        self.key("--offset", "offset", args.offset.as_deref());
        self.key("--length", "length", args.length.as_deref());
    }
}

/// What every case begins with.
fn head(title: &str) -> String {
    format!("name = \"explained\"\ntitle = {}\nsource = \"own\"\n\n", quoted(title))
}

fn bus_range(text: &str) -> Result<String, Mistake> {
    match text.split(':').collect::<Vec<_>>().as_slice() {
        [cpu, bus, size] => {
            let [cpu, bus, size] = [cpu, bus, size].map(|part| value(part));
            Ok(format!("{{ cpu = {cpu}, bus = {bus}, size = {size} }}"))
        }
        _ => {
            let text = format!("a bus range is CPU:BUS:SIZE, which '{text}' is not");
            Err(Mistake { option: "--bus-range", text })
        }
    }
}

/// A value as TOML: a number where it is one to TOML also, else a text.
pub(super) fn value(text: &str) -> String {
    let number = match text.strip_prefix("0x") {
        Some(hex) => !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0'),
    };
    let number = number && !text.is_empty() && text.len() <= 18;
    if number || text == "0" { text.to_owned() } else { quoted(text) }
}

/// A text as TOML.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out += &format!("\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbers_or_texts() {
        for (given, toml) in [
            ("4096", "4096"),
            ("0x80000000", "0x80000000"),
            ("0", "0"),
            ("007", "\"007\""),
            ("0x", "\"0x\""),
            ("", "\"\""),
            ("4KiB", "\"4KiB\""),
            ("-1", "\"-1\""),
            ("18446744073709551616", "\"18446744073709551616\""),
            ("a\"\\\n\u{7f}", "\"a\\\"\\\\\\u000a\\u007f\""),
        ] {
            assert_eq!(value(given), toml);
        }
    }
}
