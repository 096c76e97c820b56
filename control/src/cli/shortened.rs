//! Commands of which so little was written that several are meant.

use clap::{Command, CommandFactory};

use super::Cli;

/// What is said of `arguments`, with the name of the program first, if a command in them is
/// short for more than one.
pub fn ambiguous(arguments: &[String]) -> Option<String> {
    let mut command = Cli::command();
    command.build();
    let mut command = &command;
    let mut given = arguments.iter().skip(1);
    while let Some(word) = given.next() {
        if word.starts_with('-') {
            if takes_value(command, word) {
                given.next();
            }
            continue;
        }
        if !command.has_subcommands() {
            return None;
        }
        match meant(command, word).as_slice() {
            [] => return None,
            [one] => command = one,
            several => {
                let names: Vec<&str> = several.iter().map(|command| command.get_name()).collect();
                return Some(format!("`{word}` is short for several commands: {}", names.join(", ")));
            }
        }
    }
    None
}

/// Whether the word behind the option `word` belongs to it.
fn takes_value(command: &Command, word: &str) -> bool {
    let named = |argument: &&clap::Arg| argument.get_long().is_some_and(|long| word == format!("--{long}"));
    command
        .get_arguments()
        .find(named)
        .is_some_and(|argument| argument.get_action().takes_values() && !argument.is_require_equals_set())
}

/// The commands that `word` is, or may be short for.
fn meant<'a>(command: &'a Command, word: &str) -> Vec<&'a Command> {
    let names = |command: &'a Command| std::iter::once(command.get_name()).chain(command.get_all_aliases());
    let all = || command.get_subcommands().filter(|command| !command.is_hide_set());
    match all().find(|&command| names(command).any(|name| name == word)) {
        Some(exactly) => vec![exactly],
        None => all().filter(|&command| names(command).any(|name| name.starts_with(word))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn arguments(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_short_for_several_is_refused_with_their_names() {
        for (line, said) in [
            ("vxlane sta", "`sta` is short for several commands: status, stats"),
            ("vxlane --socket net sta", "`sta` is short for several commands: status, stats"),
            ("vxlane net d blue", "`d` is short for several commands: rm, disconnect"),
            ("vxlane e ls", "`e` is short for several commands: events, endpoint, express"),
            ("vxlane --json fdb f", ""),
        ] {
            let said = Some(said).filter(|said| !said.is_empty());
            assert_eq!(ambiguous(&arguments(line)).as_deref(), said, "{line}");
            assert_eq!(Cli::try_parse_from(arguments(line)).is_err(), said.is_some(), "{line}");
        }
    }

    #[test]
    fn every_object_and_every_verb_can_be_shortened_as_far_as_it_is_unique() {
        let mut command = Cli::command();
        command.build();
        let mut tried = 0;
        for object in command.get_subcommands().filter(|object| !object.is_hide_set() && object.get_name() != "help") {
            for length in 1..=object.get_name().len() {
                let short = &object.get_name()[..length];
                let unique = meant(&command, short).len() == 1;
                assert_eq!(ambiguous(&arguments(&format!("vxlane {short}"))).is_none(), unique, "{short}");
                tried += 1;
            }
            for verb in object.get_subcommands().filter(|verb| verb.get_name() != "help") {
                let unique =
                    (1..).map(|length| &verb.get_name()[..length]).find(|short| meant(object, short).len() == 1);
                let line = format!("vxlane {} {} --help", object.get_name(), unique.unwrap());
                let error = Cli::try_parse_from(arguments(&line)).unwrap_err();
                assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{line}");
                tried += 1;
            }
        }
        assert!(tried > 40, "{tried}");
    }
}
