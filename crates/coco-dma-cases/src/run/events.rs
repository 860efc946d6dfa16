//! What the layer told its observer.

use std::mem;
use std::sync::{Mutex, PoisonError};

use coco_dma::observe::{Event, Observer};

/// Keeps the names of events.
#[derive(Debug, Default)]
pub(super) struct Events(Mutex<Vec<&'static str>>);

impl Events {
    /// Those since the last time.
    pub(super) fn take(&self) -> Vec<&'static str> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Events {
    fn event(&self, event: &Event<'_>) {
        let name = match event {
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
}
