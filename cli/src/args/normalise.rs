//! The seed writes long options with one dash (`-port 6001`, `-tracker=http://...`). They become
//! long options here, before clap sees them; short ones (`-r`, `-j8`, `-ojson`) stay.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::Command;

/// Rewrites `-name` and `-name=value` to `--name...` where `name` is a long option of `command` or
/// of anything below it. What follows `--` stays as it is.
pub fn normalise(command: &Command, argv: Vec<OsString>) -> Vec<OsString> {
    let mut known = BTreeSet::new();
    collect_long_options(command, &mut known);
    let mut literal = false;
    argv.into_iter()
        .enumerate()
        .map(|(at, argument)| {
            literal |= argument == "--";
            match argument.to_str() {
                Some(text) if at > 0 && !literal && is_single_dash_long(text, &known) => {
                    OsString::from(format!("-{text}"))
                }
                _ => argument,
            }
        })
        .collect()
}

fn collect_long_options(command: &Command, known: &mut BTreeSet<String>) {
    known.extend(["help".to_owned(), "version".to_owned()]);
    known.extend(
        command
            .get_arguments()
            .filter_map(|argument| argument.get_long().map(str::to_owned)),
    );
    for sub in command.get_subcommands() {
        collect_long_options(sub, known);
    }
}

fn is_single_dash_long(text: &str, known: &BTreeSet<String>) -> bool {
    let Some(rest) = text.strip_prefix('-') else {
        return false;
    };
    let name = rest.split_once('=').map_or(rest, |(name, _)| name);
    // One letter is a short option, whatever its long name is.
    name.len() > 1 && known.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory as _;

    fn normalised(line: &str) -> String {
        let argv = line.split(' ').map(OsString::from).collect();
        let words = normalise(&Cli::command(), argv);
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn long_options_with_one_dash_get_their_second() {
        assert_eq!(
            normalised("dfs datanode -port 6001 -tracker=http://localhost/:6000"),
            "dfs datanode --port 6001 --tracker=http://localhost/:6000"
        );
        assert_eq!(normalised("dfs -help"), "dfs --help");
    }

    #[test]
    fn short_options_clusters_names_and_literals_stay() {
        for line in [
            "dfs put -r a b/",
            "dfs put -rj8 a b/",
            "dfs ls -ojson",
            "dfs put - a",
            "dfs put a/-port b",
            "dfs rm -- -port",
            "dfs ls --recursive",
        ] {
            assert_eq!(normalised(line), line);
        }
    }
}
