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

    /// The process; starts one where there is none, and another one where it gets stuck before it
    /// was executed. It may have ended meanwhile: whoever uses it finds out. Blocks as
    /// [`DeviceProcess::start`] does, for three of them at most.
    ///
    /// # Errors
    ///
    /// As for `start`; [`DeviceError::Fruitless`] as for [`replace`](Self::replace).
    pub fn process(&mut self) -> Result<&DeviceProcess, DeviceError> {
        let process = match self.process.take() {
            Some(process) => process,
            None => self.start()?,
        };
        Ok(self.process.insert(process))
    }

    fn start(&mut self) -> Result<DeviceProcess, DeviceError> {
        loop {
            let started = DeviceProcess::start(self.launch);
            if started.as_ref().is_err_and(|error| !error.is_loss()) {
                return started;
            }
            self.starts += 1;
            self.fruitless += 1;
            match started {
                Ok(process) => {
                    self.separation = Some(process.separation());
                    return Ok(process);
                }
                Err(stuck) => self.replace(&stuck)?,
            }
        }
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::confine::stop_next;
    use super::super::{Backing, DeviceError, Export, Kind, Launch};
    use super::Keeper;

    /// A device whose first process is stopped between fork and exec, where `Command::spawn` waits
    /// for ever: `run` hung.
    #[test]
    fn a_process_that_is_stopped_before_it_is_executed_is_replaced() {
        let export = Export { backing: Backing::Null { size: 512 }, writable: false };
        let (kind, embedded_program) = (Kind::Embedded, Some("/bin/true".into()));
        let launch = Launch { kind, exports: vec![export], embedded_program };
        let mut keeper = Keeper::new(&launch);
        stop_next(1);
        let begun = Instant::now();
        keeper.process().unwrap();
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(60), "{took:?}");
        assert_eq!(keeper.restarts(), 1);
        keeper.replace(&"the test").unwrap();

        // The second has done nothing either: with the third, three in a row have not.
        stop_next(1);
        let error = keeper.process().unwrap_err();
        assert!(matches!(error, DeviceError::Fruitless { .. }), "{error}");
        let said = error.to_string();
        let head = "3 device processes in a row were lost before they had done anything; the last: \
                    the device process ";
        let rest = said.strip_prefix(head).unwrap_or_else(|| panic!("{said}"));
        let tail = " (killed) had not executed /bin/true 10s after its start: ";
        assert!(rest.contains(tail), "{said}");
        let pid: u32 = rest.split(' ').next().unwrap().parse().unwrap();
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it is still there");
    }
}
