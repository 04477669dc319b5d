//! What holds for the help of every command.

use super::Cli;
use clap::{Arg, Command, CommandFactory};

/// All commands, each with its whole name.
fn all() -> Vec<Command> {
    fn below(command: &Command, all: &mut Vec<Command>) {
        all.push(command.clone());
        command.get_subcommands().for_each(|command| below(command, all));
    }
    let mut root = Cli::command().disable_help_subcommand(true).term_width(80);
    root.build();
    let mut commands = Vec::new();
    below(&root, &mut commands);
    commands
}

fn name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or(command.get_name())
}

#[test]
fn the_definitions_of_all_options_fit_together() {
    Cli::command().debug_assert();
}

#[test]
fn no_line_of_help_is_wider_than_80_columns() {
    for mut command in all() {
        let (short, long) = (command.render_help().to_string(), command.render_long_help().to_string());
        for line in short.lines().chain(long.lines()) {
            assert!(line.chars().count() <= 80, "{}: {line}", name(&command));
        }
    }
}

/// (A command that only has others below it has one help.)
#[test]
fn short_help_is_a_part_of_long_help_which_ends_with_examples() {
    for mut command in all() {
        let (short, long) = (command.render_help().to_string(), command.render_long_help().to_string());
        if command.get_subcommands().next().is_some() {
            continue;
        }
        assert!(short.lines().count() < long.lines().count(), "{}", name(&command));
        assert!(!short.contains("Example"), "{}", name(&command));
        let last = long.trim_end().rsplit("\n\n").next().unwrap_or_default();
        assert!(last.starts_with("Example"), "{}: {last}", name(&command));
        for line in last.lines().filter(|line| line.trim_start().starts_with("atrous ")) {
            let words: Vec<&str> = name(&command).split(' ').collect();
            let typed: Vec<&str> = line.split_whitespace().take(words.len()).collect();
            let others = ["atrous man", "atrous watch", "atrous train"];
            let known = typed == words || others.iter().any(|other| line.trim().starts_with(other));
            assert!(known, "{}: {line}", name(&command));
        }
    }
}

#[test]
fn every_option_says_what_it_is_and_what_it_is_without_a_word() {
    let takes_a_value = |arg: &Arg| arg.get_action().takes_values();
    for command in all() {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let at = format!("{} {arg}", name(&command));
            let help = arg.get_help().unwrap_or_else(|| panic!("{at}: no help")).to_string();
            assert!(
                !help.ends_with('.') || help.ends_with("…"),
                "{at}: `{help}` is a title, not a sentence"
            );
            if takes_a_value(arg) && !arg.is_positional() && !arg.is_required_set() {
                let said = !arg.get_default_values().is_empty() || help.contains("[default: ");
                // Of these two one has to be given.
                let either = ["model", "checkpoint"].contains(&arg.get_id().as_str());
                assert!(said || either, "{at}: no default in `{help}`");
            }
            assert!(!takes_a_value(arg) || arg.get_value_names().is_some(), "{at}: no unit");
        }
    }
}
