//! Shell completions of `cargo bulkhead`.
//!
//! The program that a shell sees is cargo, which has completions of its own. So a script for a program called
//! `bulkhead` is not enough: each shell is told what follows `cargo bulkhead`, and whatever completed cargo before goes on
//! doing so.

use clap::Command;
use clap_complete::{Generator, Shell, generate};

/// The shells that scripts are made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum For {
    /// bash 4 or later
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// How bash comes to the completions: a function of cargo's that hands over where the word is `bulkhead`.
const BASH: &str = r#"
# What completes cargo otherwise; bash-completion loads it on demand.
if declare -F _completion_loader >/dev/null; then
    _completion_loader cargo
elif declare -F _comp_load >/dev/null; then
    _comp_load cargo
fi
if [[ "$(complete -p cargo 2>/dev/null)" =~ -F\ ([^ ]+) && ${BASH_REMATCH[1]} != _cargo_bulkhead ]]; then
    _cargo_bulkhead_else=${BASH_REMATCH[1]}
fi

_cargo_bulkhead() {
    local at=1
    [[ ${COMP_WORDS[1]} == +* ]] && at=2
    if ((COMP_CWORD > at)) && [[ ${COMP_WORDS[at]} == bulkhead ]]; then
        COMP_WORDS=("${COMP_WORDS[@]:at}")
        ((COMP_CWORD -= at))
        _bulkhead bulkhead "$2" "$3"
    elif [[ -n ${_cargo_bulkhead_else-} ]]; then
        "$_cargo_bulkhead_else" "$@"
    fi
}
complete -o bashdefault -o default -F _cargo_bulkhead cargo
"#;

/// How zsh does: its completion of cargo calls a function of this name.
const ZSH: &str = "\n_cargo-bulkhead() {\n    _bulkhead \"$@\"\n}\n";

/// The script for a shell; `tool` is the tool's command line.
#[must_use]
pub fn script(shell: For, tool: Command) -> String {
    let tool = tool.name("bulkhead").bin_name("bulkhead");
    match shell {
        For::Bash => text(Shell::Bash, tool, "bulkhead") + BASH,
        For::Zsh => text(Shell::Zsh, tool, "bulkhead") + ZSH,
        For::Fish => {
            // fish adds what it is told to what it knows of cargo.
            let cargo = Command::new("cargo").disable_help_flag(true).disable_help_subcommand(true);
            text(Shell::Fish, cargo.subcommand(tool), "cargo")
        }
    }
}

fn text(shell: impl Generator, mut command: Command, name: &str) -> String {
    let mut text = Vec::new();
    generate(shell, &mut command, name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
