//! Completions: scripts for shells, and words for `kubectl dfs <TAB>`.

use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;

/// What kubectl is told beside the words (cobra's directives).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directive {
    /// Names of local files fit too.
    Files,
    /// Nothing else fits.
    NoFiles,
}

/// A word and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The word.
    pub word: String,
    /// One line, or nothing.
    pub help: String,
}

/// The script for a shell.
pub fn script(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dfs", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Completes the last of `words`, which stand behind the command's own name. Pure.
pub fn complete(command: &Command, words: &[String]) -> (Vec<Candidate>, Directive) {
    let (partial, before) = words
        .split_last()
        .map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut command = command;
    let mut inherited: Vec<&Arg> = Vec::new();
    let mut value_of: Option<&Arg> = None;
    for word in before {
        if value_of.take().is_some() {
            continue;
        }
        if word.starts_with('-') {
            value_of = option(command, &inherited, word).filter(|found| takes_value(found));
        } else if let Some(sub) = command.find_subcommand(word) {
            inherited.extend(
                command
                    .get_arguments()
                    .filter(|found| found.is_global_set()),
            );
            command = sub;
        }
    }
    if let Some(argument) = value_of {
        return values(argument, partial);
    }
    let found = if partial.starts_with('-') {
        options(command, &inherited)
    } else if command.has_subcommands() {
        subcommands(command)
    } else {
        return positional(command, partial);
    };
    let fits = |candidate: &Candidate| candidate.word.starts_with(partial);
    (found.into_iter().filter(fits).collect(), Directive::NoFiles)
}

/// As kubectl reads it: a word with its description a line, then the directive.
pub fn render(candidates: &[Candidate], directive: Directive) -> String {
    let mut lines: Vec<_> = candidates
        .iter()
        .map(|Candidate { word, help }| format!("{word}\t{help}"))
        .collect();
    lines.push(match directive {
        Directive::Files => ":0".to_owned(),
        Directive::NoFiles => ":4".to_owned(),
    });
    lines.join("\n")
}

/// The option that `--name` or `-n` is, when its value is the next word.
fn option<'c>(command: &'c Command, inherited: &[&'c Arg], word: &str) -> Option<&'c Arg> {
    let mut all = command.get_arguments().chain(inherited.iter().copied());
    if let Some(long) = word.strip_prefix("--") {
        return all.find(|found| found.get_long() == Some(long));
    }
    let short = word.chars().last();
    all.find(|found| found.get_short() == short)
}

fn takes_value(argument: &Arg) -> bool {
    argument.get_action().takes_values()
}

fn values(argument: &Arg, partial: &str) -> (Vec<Candidate>, Directive) {
    let found = argument.get_possible_values();
    let directive = if found.is_empty() {
        Directive::Files
    } else {
        Directive::NoFiles
    };
    let found = found.iter().filter(|value| !value.is_hide_set());
    let found = found.map(|value| Candidate {
        word: value.get_name().to_owned(),
        help: value
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default(),
    });
    (
        found
            .filter(|value| value.word.starts_with(partial))
            .collect(),
        directive,
    )
}

fn options(command: &Command, inherited: &[&Arg]) -> Vec<Candidate> {
    let all = command.get_arguments().chain(inherited.iter().copied());
    all.filter(|found| !found.is_hide_set())
        .filter_map(|found| {
            let long = found.get_long()?;
            Some(Candidate {
                word: format!("--{long}"),
                help: first_line(found.get_help()),
            })
        })
        .collect()
}

fn subcommands(command: &Command) -> Vec<Candidate> {
    let all = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    all.map(|sub| Candidate {
        word: sub.get_name().to_owned(),
        help: first_line(sub.get_about()),
    })
    .collect()
}

/// Only `put` and `get` have local files among their words; paths in the store would need the store.
fn positional(command: &Command, partial: &str) -> (Vec<Candidate>, Directive) {
    let mut all = command.get_positionals();
    match all.next() {
        Some(argument) if !argument.get_possible_values().is_empty() => values(argument, partial),
        _ if matches!(command.get_name(), "put" | "get") => (Vec::new(), Directive::Files),
        _ => (Vec::new(), Directive::NoFiles),
    }
}

fn first_line(help: Option<&clap::builder::StyledStr>) -> String {
    let text = help.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

    fn words(line: &str) -> (Vec<String>, Directive) {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let (found, directive) = complete(&crate::kube::command(), &words);
        (
            found.into_iter().map(|found| found.word).collect(),
            directive,
        )
    }

    #[test]
    fn the_bash_script_parses_and_every_shell_has_one() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, script(Shell::Bash).as_bytes()).unwrap();
        let checked = std::process::Command::new("bash")
            .arg("-n")
            .arg(file.path())
            .status();
        assert!(checked.unwrap().success());
        for shell in Shell::value_variants() {
            let text = script(*shell);
            for word in ["decommission", "completions", "--tracker"] {
                let bare = word.trim_start_matches('-');
                assert!(text.contains(bare), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn the_plugin_completes_verbs_options_and_values() {
        assert_eq!(
            words("st"),
            (vec!["stat".into(), "status".into()], Directive::NoFiles)
        );
        let (verbs, _) = words("-n prod ");
        assert!(verbs.contains(&"ls".to_owned()) && !verbs.contains(&"tracker".to_owned()));
        assert_eq!(words("ls -o j").0, ["json"]);
        assert_eq!(words("ls --output ").0, ["text", "json"]);
        assert_eq!(words("ls --rec").0, ["--recursive"]);
        assert_eq!(words("ls --clus").0, ["--cluster"]);
        assert_eq!(words("trash ").0, ["list", "restore", "purge"]);
        assert_eq!(words("put a").1, Directive::Files);
        assert_eq!(words("ls a").1, Directive::NoFiles);
    }

    #[test]
    fn kubectl_reads_a_word_a_line_and_the_directive_last() {
        let candidate = Candidate {
            word: "ls".to_owned(),
            help: "List".to_owned(),
        };
        assert_eq!(render(&[candidate], Directive::NoFiles), "ls\tList\n:4");
        assert_eq!(render(&[], Directive::Files), ":0");
    }
}
