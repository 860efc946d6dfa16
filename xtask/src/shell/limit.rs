//! How long a step may take.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::group;

/// How long a step that has reached its limit may take to say so.
const GRACE: Duration = Duration::from_secs(60);

/// The limit of the step that runs. Whatever commands it starts are ended then; where it does not
/// come to an end all the same, we are.
#[derive(Debug)]
pub(crate) struct Limit {
    step: &'static str,
    whole: Duration,
    until: Instant,
    /// Gone with the step.
    _alive: Arc<()>,
}

impl Limit {
    /// The limit of a step that begins now.
    pub(crate) fn of(step: &'static str, whole: Duration) -> Self {
        let alive = Arc::new(());
        let watched = Arc::downgrade(&alive);
        // One that cannot be started leaves the commands' limits.
        let _ = thread::Builder::new().name(format!("limit of {step}")).spawn(move || {
            thread::sleep(whole + GRACE);
            if watched.upgrade().is_some() {
                eprintln!("xtask: step {step} has run for longer than {}: ended", shown(whole));
                group::end_all();
                std::process::exit(1);
            }
        });
        Self { step, whole, until: Instant::now() + whole, _alive: alive }
    }

    /// When the step has to have ended, and something in it that may take `most`.
    pub(crate) fn until(&self, most: Option<Duration>) -> Instant {
        let own = most.map(|most| Instant::now() + most);
        own.map_or(self.until, |own| own.min(self.until))
    }

    /// How long one test may take: a quarter of the step.
    pub(super) fn of_a_test(&self) -> Duration {
        self.whole / 4
    }

    /// Why something that may take `most` was ended.
    pub(super) fn told(&self, most: Option<Duration>) -> String {
        match most {
            Some(most) if Instant::now() < self.until => {
                format!("it ran for longer than {}", shown(most))
            }
            _ => format!("{self} is over"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the time of step {}, {},", self.step, shown(self.whole))
    }
}

/// A time for people.
pub(crate) fn shown(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}
