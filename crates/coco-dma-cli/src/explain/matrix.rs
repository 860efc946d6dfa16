//! One question over all platforms and both trusts: a table of 80 columns, for people or for a page.

use coco_dma::regime::PlatformName;
use serde::Serialize;

use super::Answer;
use super::ExplainArgs;
use super::answer_to;
use super::draft::Draft;
use crate::failure::Failure;
use crate::number::Address;
use crate::output;
use crate::words::lookup;

/// The columns of the table.
const WIDTH: usize = 80;
/// The longest name of a platform.
const NAME: usize = 8;
/// Both trusts.
const TRUSTS: [&str; 2] = ["untrusted", "accepted"];

/// How the table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Markdown,
}

pub(super) fn form(text: &str) -> Result<Form, String> {
    lookup("form of the matrix", text, &[("text", Form::Text), ("markdown", Form::Markdown)])
}

/// A platform's answers: none where the question does not exist.
#[derive(Debug, Serialize)]
struct Row {
    platform: &'static str,
    untrusted: Option<Cell>,
    accepted: Option<Cell>,
}

#[derive(Debug, Serialize)]
struct Cell {
    outcome: &'static str,
    reason: String,
    dma_addr: Option<Address>,
    pool: Option<String>,
}

#[derive(Debug, Serialize)]
struct Matrix {
    matrix: Vec<Row>,
}

/// Asks everywhere and prints the table.
pub(super) fn print(args: &ExplainArgs, form: Form) -> Result<(), Failure> {
    let mut matrix = Vec::new();
    for platform in PlatformName::ALL.map(PlatformName::name) {
        let [untrusted, accepted] = TRUSTS.map(|trust| cell(args, platform, trust));
        matrix.push(Row { platform, untrusted: untrusted?, accepted: accepted? });
    }
    if matrix.iter().all(|row| row.untrusted.is_none() && row.accepted.is_none()) {
        // Nowhere: then it is the question that is wrong.
        let draft = Draft::new(args, super::PLATFORM, Some("untrusted"))?;
        answer_to(&draft)?;
    }
    if args.json {
        return output::json(&Matrix { matrix });
    }
    output::lines(&table(&matrix, form))
}

/// One answer; `None` where no device can be accepted, or no memory is so.
fn cell(args: &ExplainArgs, platform: &str, trust: &str) -> Result<Option<Cell>, Failure> {
    match answer_to(&Draft::new(args, platform, Some(trust))?) {
        Ok(Answer { outcome, reason, address, pool, .. }) => {
            Ok(Some(Cell { outcome, reason, dma_addr: address.map(Address), pool }))
        }
        Err(mistake) if matches!(mistake.option, "--trust" | "--memory") => Ok(None),
        Err(mistake) => Err(mistake.into()),
    }
}

/// The table: a cell that is too wide goes on in the line below.
fn table(rows: &[Row], form: Form) -> String {
    // What stands before, between and behind the cells.
    let (start, middle, end) = match form {
        Form::Text => ("", "  ", ""),
        Form::Markdown => ("| ", " | ", " |"),
    };
    let wide = (WIDTH - NAME - start.len() - 2 * middle.len() - end.len()) / 2;
    let line = |cells: [&str; 3]| {
        let [name, untrusted, accepted] = cells;
        let text =
            format!("{start}{name:<NAME$}{middle}{untrusted:<wide$}{middle}{accepted:<wide$}{end}");
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(["platform", TRUSTS[0], TRUSTS[1]])];
    if form == Form::Markdown {
        let dashes = "-".repeat(wide);
        lines.push(line(["--------", &dashes, &dashes]));
    }
    for row in rows {
        let cells = [&row.untrusted, &row.accepted].map(|cell| wrapped(cell.as_ref(), wide));
        let [untrusted, accepted] = &cells;
        for index in 0..untrusted.len().max(accepted.len()) {
            let name = if index == 0 { row.platform } else { "" };
            let [untrusted, accepted] =
                [untrusted, accepted].map(|cell| cell.get(index).map_or("", String::as_str));
            lines.push(line([name, untrusted, accepted]));
        }
    }
    lines.join("\n")
}

/// The words of a cell in lines of this width.
fn wrapped(cell: Option<&Cell>, wide: usize) -> Vec<String> {
    let Some(Cell { outcome, reason, dma_addr, .. }) = cell else { return vec!["-".to_owned()] };
    let address = dma_addr.map(|Address(address)| format!("at {address:#x}"));
    let words = [outcome.to_string(), reason.clone()].into_iter().chain(address);
    let mut lines: Vec<String> = Vec::new();
    for word in words.filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= wide => *line += &format!(" {word}"),
            _ => lines.push(word),
        }
    }
    lines
}
