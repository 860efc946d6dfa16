//! `coco-dma platforms`: what each platform looks like here, computed from the same rules that
//! decide.

use coco_dma::addr::PhysAddr;
use coco_dma::regime::Contents;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::State;
use coco_dma::state::Trust;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;

use crate::args::PlatformsArgs;
use crate::failure::Failure;
use crate::number::Address;
use crate::output;

/// One platform.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    kind: &'static str,
    granule: u64,
    accepted_devices: bool,
    /// The forms of the page at `example`, by what they are for; null where none exists.
    example: Address,
    cpu_private: Option<Address>,
    cpu_shared: Option<Address>,
    dma_untrusted_shared: Option<Address>,
    dma_accepted_private: Option<Address>,
    dma_accepted_shared: Option<Address>,
    contents_on_share: &'static str,
    contents_on_reclaim: &'static str,
    conversion: &'static str,
    failure: &'static str,
    run_on_silicon: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    platforms: Vec<Row>,
}

/// The page whose forms are shown.
const EXAMPLE: u64 = 0x8000_0000;

/// Runs the command.
pub(crate) fn platforms(args: &PlatformsArgs) -> Result<(), Failure> {
    let rows = PlatformName::ALL
        .into_iter()
        .map(|name| {
            let regime = name
                .regime(&Parameters::default())
                .map_err(|wrong| Failure::NotHeld(wrong.to_string()))?;
            Ok(row(name, &regime))
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    if args.json {
        return output::json(&Document { platforms: rows });
    }
    output::lines(&table(&rows))
}

fn row(name: PlatformName, regime: &Regime) -> Row {
    let (private, shared) = match regime {
        Regime::Open => (State::Ordinary, State::Ordinary),
        Regime::Host(_) => (State::ENCRYPTED, State::PLAIN),
        Regime::Guest(_) => (State::PRIVATE, State::SHARED),
    };
    let cpu = |state| regime.cpu_form(PhysAddr::new(EXAMPLE), state).map(Address);
    let dma = |trust, state| regime.dma_form(trust, state, EXAMPLE).map(|addr| Address(addr.raw()));
    let accepted = regime.has_accepted_devices();
    let (share, reclaim) = match regime {
        Regime::Guest(guest) => (contents(guest.on_share), contents(guest.on_reclaim)),
        _ => ("no conversion", "no conversion"),
    };
    let (conversion, failure) = protocol(name);
    Row {
        name: name.name(),
        kind: match regime {
            Regime::Open => "open",
            Regime::Host(_) => "host",
            Regime::Guest(_) => "guest",
        },
        granule: regime.granule(),
        accepted_devices: accepted,
        example: Address(EXAMPLE),
        cpu_private: cpu(private),
        cpu_shared: cpu(shared),
        dma_untrusted_shared: dma(Trust::Untrusted, shared),
        dma_accepted_private: accepted.then(|| dma(Trust::Accepted, private)).flatten(),
        dma_accepted_shared: accepted.then(|| dma(Trust::Accepted, shared)).flatten(),
        contents_on_share: share,
        contents_on_reclaim: reclaim,
        conversion,
        failure,
        run_on_silicon: false,
    }
}

fn contents(contents: Contents) -> &'static str {
    match contents {
        Contents::Kept => "kept",
        Contents::Zeroed => "zeroed",
        Contents::Undefined => "undefined",
    }
}

/// How memory converts there and what a failure looks like: texts for people, decided by nobody.
fn protocol(name: PlatformName) -> (&'static str, &'static str) {
    match name {
        PlatformName::Open => ("none", "none"),
        PlatformName::Sme => (
            "C-bit in the page table and a cache flush, no hypercall",
            "page tables only: no memory",
        ),
        PlatformName::Sev => {
            ("C-bit flip, then KVM_HC_MAP_GPA_RANGE", "the hypercall's answer says nothing")
        }
        PlatformName::Snp => (
            "PVALIDATE and page-state-change by GHCB (or SVSM)",
            "partial; the guest terminates itself",
        ),
        PlatformName::SnpVtom => {
            ("as snp, by the paravisor or SVSM where there is one", "partial; as snp")
        }
        PlatformName::Tdx => (
            "TDVMCALL MapGPA, then TDG.MEM.PAGE.ACCEPT to reclaim",
            "partial; state unknown after any error",
        ),
        PlatformName::Cca => ("RSI_IPA_STATE_SET in a loop", "partial: the new top says how far"),
        PlatformName::Pkvm => {
            ("HVC MEM_SHARE and MEM_UNSHARE, a granule a call", "partial: a granule was refused")
        }
        PlatformName::Hyperv => (
            "HVCALL_MODIFY_SPARSE_GPA_PAGE_HOST_VISIBILITY, 510 pages a call",
            "partial: reps done",
        ),
        PlatformName::S390 => {
            ("UVC Set and Remove Shared Access, a page a call", "cc 1 with rc and rrc")
        }
        PlatformName::Pef => (
            "UV_SHARE_PAGE and UV_UNSHARE_PAGE, 64 KiB pages as a rule",
            "a code for the whole call",
        ),
    }
}

fn table(rows: &[Row]) -> String {
    let form = |form: &Option<Address>| match form {
        Some(Address(addr)) => format!("{addr:#x}"),
        None => "-".to_owned(),
    };
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "platform",
        "kind",
        "CPU private",
        "CPU shared",
        "T=0 shared",
        "T=1 private",
        "T=1 shared",
        "conversion",
        "failure",
    ]);
    for row in rows {
        table.add_row([
            row.name.to_owned(),
            row.kind.to_owned(),
            form(&row.cpu_private),
            form(&row.cpu_shared),
            form(&row.dma_untrusted_shared),
            form(&row.dma_accepted_private),
            form(&row.dma_accepted_shared),
            row.conversion.to_owned(),
            row.failure.to_owned(),
        ]);
    }
    format!(
        "{table}\nForms of the page at {EXAMPLE:#x}, with each platform's default numbers; on sme \
         'private' is encrypted and 'shared' is plain.\nNo platform was run on its silicon: forms \
         follow the specifications, devices and IOMMUs are real programs."
    )
}
