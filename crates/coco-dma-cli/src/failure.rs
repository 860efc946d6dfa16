//! How the command ends when it does not end well.

use core::fmt;
use std::process::ExitCode;

/// One clear sentence and an exit status.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Status 1: something did not hold.
    NotHeld(String),
    /// Status 2: wrong usage.
    Usage(String),
    /// Status 3: something needed is missing.
    Missing(String),
}

impl Failure {
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NotHeld(_) => 1,
            Self::Usage(_) => 2,
            Self::Missing(_) => 3,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHeld(text) | Self::Usage(text) | Self::Missing(text) => f.write_str(text),
        }
    }
}

impl core::error::Error for Failure {}
