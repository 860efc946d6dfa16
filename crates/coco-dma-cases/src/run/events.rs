//! What the layer told its observer.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use coco_dma::observe::ftrace::points;
use coco_dma::observe::{Event, Observer};

/// The lines of a trace.
pub(super) type Lines = Arc<Mutex<Vec<String>>>;

/// Keeps the names of events, and the lines of those that Linux traces where somebody wants them.
#[derive(Debug, Default)]
pub(super) struct Events(Mutex<Vec<&'static str>>, Option<Lines>);

impl Events {
    pub(super) fn tracing(lines: Option<Lines>) -> Self {
        Self(Mutex::default(), lines)
    }

    /// Those since the last time.
    pub(super) fn take(&self) -> Vec<&'static str> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Events {
    fn event(&self, event: &Event<'_>) {
        if let Some(lines) = &self.1 {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.extend(points(event).map(|point| point.to_string()));
        }
        let name = match event {
            // For the trace alone.
            Event::Mapped { .. }
            | Event::Unmapped(_)
            | Event::Synced { .. }
            | Event::Allocated { .. }
            | Event::Freed(_) => return,
            Event::Bounced { .. } => "bounced",
            Event::Refused { .. } => "refused",
            Event::Converted { .. } => "converted",
            Event::ConversionFailed { .. } => "conversion-failed",
            Event::CipherChanged { .. } => "cipher-changed",
            Event::CipherFailed { .. } => "cipher-failed",
            Event::Recovered { .. } => "recovered",
            Event::LowWater { .. } => "low-water",
            Event::Revoked { .. } => "revoked",
            Event::TrustLost { .. } => "trust-lost",
            _ => "other",
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    }

    fn wants_maps(&self) -> bool {
        self.1.is_some()
    }
}
