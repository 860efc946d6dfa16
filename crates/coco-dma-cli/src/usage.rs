//! Turns what the argument parser says into one clear sentence.

use core::error::Error;

use clap::error::ContextKind;
use clap::error::ContextValue;
use clap::error::ErrorKind;

use crate::failure::Failure;

/// The sentence for a mistake in the arguments.
pub(crate) fn sentence(error: &clap::Error) -> Failure {
    let context = |kind| error.get(kind).map(words).filter(|text| !text.is_empty());
    let option = context(ContextKind::InvalidArg).unwrap_or_else(|| "an option".to_owned());
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    let near =
        |kind| context(kind).map(|word| format!("; did you mean '{word}'?")).unwrap_or_default();
    let text = match error.kind() {
        ErrorKind::UnknownArgument => {
            format!("unknown option or word '{option}'{}", near(ContextKind::SuggestedArg))
        }
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            crate::words::unknown("command", &word, crate::args::COMMANDS.into_iter())
        }
        ErrorKind::ValueValidation => {
            let why = error.source().map(ToString::to_string).unwrap_or_default();
            format!("{option}: {why}")
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("{option} needs a value"),
        ErrorKind::InvalidValue => {
            let known = context(ContextKind::ValidValue).unwrap_or_default();
            let near = near(ContextKind::SuggestedValue);
            format!("{option}: unknown value '{value}'{near} (known: {known})")
        }
        ErrorKind::MissingRequiredArgument => format!("{option} is required"),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("a command is required: {}", crate::args::COMMANDS.join(", "))
        }
        ErrorKind::ArgumentConflict => match context(ContextKind::PriorArg) {
            Some(other) if other != option => {
                format!("{} does not go with {}", name(&option), name(&other))
            }
            _ => format!("{option} was given more than once"),
        },
        ErrorKind::TooManyValues | ErrorKind::WrongNumberOfValues => {
            format!("{option} takes one value")
        }
        _ => error.to_string().lines().next().unwrap_or_default().replace("error: ", ""),
    };
    let text = text.lines().collect::<Vec<_>>().join(" ");
    Failure::Usage(format!("{text}; see --help"))
}

/// An option without the name of its value.
fn name(option: &str) -> String {
    option.split_whitespace().next().unwrap_or(option).to_owned()
}

fn words(value: &ContextValue) -> String {
    match value {
        ContextValue::String(word) => word.clone(),
        ContextValue::Strings(words) => words.join(", "),
        other => other.to_string(),
    }
}
