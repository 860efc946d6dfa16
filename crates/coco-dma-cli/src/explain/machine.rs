//! What the arguments say of machine and memory, and what they leave to be assumed.

use coco_dma::attrs::Attrs;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::Memory;
use coco_dma::state::State;

use super::ExplainArgs;
use super::words::MEMORY;
use super::words::MemoryWord;
use crate::failure::Failure;
use crate::output;
use crate::words::unknown;

/// The rules of the machine; options that the platform does not use are left out with a note.
pub(super) fn regime(args: &ExplainArgs, platform: PlatformName) -> Result<Regime, Failure> {
    use PlatformName::{Cca, Hyperv, Sev, Sme, Snp, SnpVtom, Tdx};
    let used = |given: bool, option: &str, by: &[PlatformName]| {
        if given && !by.contains(&platform) {
            output::note(&format!("{option} means nothing on '{platform}' and is ignored"));
        }
    };
    used(args.c_bit.is_some(), "--c-bit", &[Sme, Sev, Snp]);
    used(args.ipa_bits.is_some(), "--ipa-bits", &[Cca]);
    used(args.gpaw.is_some(), "--gpaw", &[Tdx]);
    used(args.vtom.is_some(), "--vtom", &[SnpVtom, Hyperv]);
    let numbers = Parameters {
        c_bit: args.c_bit,
        ipa_bits: args.ipa_bits,
        gpaw: args.gpaw,
        vtom: args.vtom,
        granule: args.granule,
    };
    platform.regime(&numbers).map_err(|wrong| Failure::Usage(format!("{wrong}; see --help")))
}

/// What is known of the memory. On an open machine any word is ignored but those of registers;
/// elsewhere a word of another kind of machine is wrong.
pub(super) fn memory(
    args: &ExplainArgs,
    platform: PlatformName,
    regime: &Regime,
    attrs: Attrs,
    assumed: &mut Assumed,
) -> Result<Memory, Failure> {
    let word = match args.memory {
        Some(word) => word,
        None if attrs.contains(Attrs::MMIO) => MemoryWord::Mmio,
        None => match regime {
            Regime::Open => return Ok(Memory::Untracked),
            Regime::Host(_) => {
                assumed.note("memory encrypted".to_owned());
                MemoryWord::Encrypted
            }
            Regime::Guest(_) => {
                assumed.note("memory private".to_owned());
                MemoryWord::Private
            }
        },
    };
    Ok(match (regime, word) {
        (_, MemoryWord::Peer) => Memory::Peer,
        (_, MemoryWord::Mmio) => Memory::Mmio,
        (Regime::Open, _) => Memory::Untracked,
        (_, MemoryWord::Unlocated) => Memory::Untracked,
        (_, MemoryWord::Quarantined) => Memory::Quarantined,
        (_, MemoryWord::Converting) => Memory::Converting,
        (Regime::Guest(_), MemoryWord::Unaccepted) => Memory::Unaccepted,
        (Regime::Host(_), MemoryWord::Encrypted) => Memory::Known(State::ENCRYPTED),
        (Regime::Host(_), MemoryWord::Plain) => Memory::Known(State::PLAIN),
        (Regime::Guest(_), MemoryWord::Private) => Memory::Known(State::PRIVATE),
        (Regime::Guest(_), MemoryWord::Shared) => Memory::Known(State::SHARED),
        (Regime::Guest(_), MemoryWord::Untracked) => Memory::Untracked,
        (Regime::Guest(_), MemoryWord::Mixed) => Memory::Mixed,
        (_, word) => {
            let word = MEMORY.iter().find(|(_, w)| *w == word).map_or("", |(name, _)| name);
            let here: &[&str] = match regime {
                Regime::Guest(_) => &["private", "shared", "unaccepted", "mixed"],
                _ => &["encrypted", "plain"],
            };
            let every = ["untracked", "mmio", "peer", "quarantined", "converting", "unlocated"];
            let what = format!("state of memory on '{platform}'");
            return Err(Failure::Usage(unknown(&what, word, here.iter().copied().chain(every))));
        }
    })
}

/// What was not said and taken for granted.
#[derive(Default)]
pub(super) struct Assumed(pub(super) Vec<String>);

impl Assumed {
    pub(super) fn note(&mut self, what: String) {
        self.0.push(what);
    }

    pub(super) fn or<T: Copy, S: ToString>(
        &mut self,
        given: Option<T>,
        default: T,
        what: &str,
        name: impl Fn(T) -> S,
    ) -> T {
        given.unwrap_or_else(|| {
            self.note(format!("{what} {}", name(default).to_string()));
            default
        })
    }
}
