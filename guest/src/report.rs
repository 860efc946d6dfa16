//! What the guest tells: events of the layer as they come, and a line for each thing that was
//! shown. Lines are words of `key=value`, for the program that reads the serial port.

use alloc::format;
use alloc::string::String;
use core::cell::Cell;
use core::fmt::Display;

use coco_dma::observe::Event;
use coco_dma::observe::Observer;
use coco_dma::reason::Bounce;

use crate::rt::OneCpu;
use crate::say;

/// Listens to the layer and counts.
#[derive(Debug, Default)]
pub struct Listener {
    /// Conversions that went through.
    pub conversions: Cell<usize>,
    /// Conversions that did not.
    pub failures: Cell<usize>,
    /// Faults.
    pub faults: Cell<usize>,
    /// Why the last buffer was bounced.
    pub bounced: Cell<Option<Bounce>>,
}

/// The one listener.
pub static LISTENER: OneCpu<Listener> = OneCpu::new(Listener {
    conversions: Cell::new(0),
    failures: Cell::new(0),
    faults: Cell::new(0),
    bounced: Cell::new(None),
});

impl Observer for OneCpu<Listener> {
    fn event(&self, event: &Event<'_>) {
        let count = |counter: &Cell<usize>| counter.set(counter.get() + 1);
        match event {
            Event::Bounced { reason, .. } => return self.bounced.set(Some(*reason)),
            Event::Converted { .. } => return count(&self.conversions),
            Event::ConversionFailed { .. } => count(&self.failures),
            Event::Fault(_) => count(&self.faults),
            _ => {}
        }
        say!("event {event}");
    }
}

/// One line of the report.
#[derive(Debug, Default)]
pub struct Row(String);

impl Row {
    /// With one more word.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Display) -> Self {
        self.0.push_str(&format!(" {key}={value}"));
        self
    }

    /// Says it.
    pub fn say(self) {
        say!("row{}", self.0);
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
