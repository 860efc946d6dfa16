//! Standard output for answers, standard error for everything else.

use std::io::Write;

use serde::Serialize;

use crate::failure::Failure;

/// Prints one JSON document, and nothing else.
pub(crate) fn json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::NotHeld(format!("the answer cannot be written: {error}")))?;
    lines(&text)
}

/// Prints lines for people. A reader that has gone is no failure.
pub(crate) fn lines(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::NotHeld(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Says something that is no answer.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "coco-dma: note: {text}");
}

/// Says why the command ends.
pub(crate) fn error(failure: &Failure) {
    let _ = writeln!(std::io::stderr(), "coco-dma: {failure}");
}
