//! Keeping a device running: a process, and the next one when it is lost.

use core::fmt::Display;

use super::{DeviceError, DeviceProcess, Launch, Separation};

/// How many processes in a row may do nothing before they are lost.
const FRUITLESS: u32 = 3;

/// Starts a device process when one is needed, and another one when it was lost, until three in a
/// row did nothing. It has one at a time: a lost one has ended before the next one starts, so that
/// nothing it was doing is still going on.
#[derive(Debug)]
pub struct Keeper<'l> {
    launch: &'l Launch,
    process: Option<DeviceProcess>,
    separation: Option<Separation>,
    starts: u32,
    /// Processes in a row, the present one among them, that have done nothing yet.
    fruitless: u32,
}

impl<'l> Keeper<'l> {
    /// A keeper of what `launch` describes. Starts nothing yet.
    #[must_use]
    pub fn new(launch: &'l Launch) -> Self {
        Self { launch, process: None, separation: None, starts: 0, fruitless: 0 }
    }

    /// The process; starts one where there is none. It may have ended meanwhile: whoever uses it
    /// finds out. Blocks as [`DeviceProcess::start`] does.
    ///
    /// # Errors
    ///
    /// As for `start`.
    pub fn process(&mut self) -> Result<&DeviceProcess, DeviceError> {
        let process = match self.process.take() {
            Some(process) => process,
            None => {
                let process = DeviceProcess::start(self.launch)?;
                self.starts += 1;
                self.fruitless += 1;
                self.separation = Some(process.separation());
                process
            }
        };
        Ok(self.process.insert(process))
    }

    /// The present process has done something.
    pub fn did_something(&mut self) {
        self.fruitless = 0;
    }

    /// The present process is lost: ends it, if it has not ended, and lets
    /// [`process`](Self::process) start another one. Blocks, for 5 seconds at most.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Fruitless`] with `why` after three that did nothing,
    /// [`DeviceError::Unstoppable`] where it does not end.
    pub fn replace(&mut self, why: &dyn Display) -> Result<(), DeviceError> {
        if let Some(process) = self.process.take() {
            process.kill()?;
        }
        if self.fruitless >= FRUITLESS {
            return Err(DeviceError::Fruitless { starts: self.fruitless, why: why.to_string() });
        }
        Ok(())
    }

    /// How many processes were started after the first.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.starts.saturating_sub(1)
    }

    /// What keeps the last process away from memory that was not shared with it; `None` before the
    /// first.
    #[must_use]
    pub fn separation(&self) -> Option<Separation> {
        self.separation
    }

    /// Ends the process, if there is one ([`DeviceProcess::stop`]).
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unstoppable`].
    pub fn stop(self) -> Result<(), DeviceError> {
        self.process.map_or(Ok(()), |process| process.stop().map(drop))
    }
}
