//! The tables of keys in `docs/manifest.md` and `docs/configuration.md`, as tests compare them with
//! the pages.

use std::fmt::Write as _;

use crate::check::Side;
use crate::configuration::{CONFIGURATION, Configuration};
use crate::entries::{environment, filesystem, network, process};
use crate::keys::{Group, Section};
use crate::resources::Resources;
use crate::{manifest, policy};

/// The name and the text of each table.
#[must_use]
pub fn tables() -> Vec<(&'static str, String)> {
    let sections: [(&str, Side, &Section); 17] = [
        ("manifest", Side::Request, &manifest::MANIFEST),
        ("plugin", Side::Request, &manifest::PLUGIN),
        ("about", Side::Request, &manifest::ABOUT),
        ("handshake", Side::Request, &manifest::HANDSHAKE),
        ("security", Side::Request, &manifest::SECURITY),
        ("capabilities", Side::Request, &manifest::CAPABILITIES),
        ("filesystem", Side::Request, &filesystem::SECTION),
        ("egress", Side::Request, &network::EGRESS_ENTRY),
        ("ingress", Side::Request, &network::INGRESS_ENTRY),
        ("process", Side::Request, &process::SECTION),
        ("exec", Side::Request, &process::EXEC_ENTRY),
        ("environment", Side::Request, &environment::REQUESTED),
        ("resources", Side::Request, Resources::section()),
        ("policy", Side::Allow, &policy::POLICY),
        ("policy section", Side::Allow, &policy::SECTION),
        ("policy rules", Side::Allow, &policy::RULES),
        ("policy environment", Side::Allow, &environment::RULED),
    ];
    let table = |(name, side, section)| (name, table(section, side));
    sections.into_iter().map(table).collect()
}

/// The name and the text of each table of `docs/configuration.md`: one of each section, and one
/// of the variables.
#[must_use]
pub fn configuration_tables() -> Vec<(String, String)> {
    let mut tables = vec![(
        "configuration".to_owned(),
        table(&CONFIGURATION, Side::Request),
    )];
    add_sections(&CONFIGURATION, "", &mut tables);
    let mut variables = "| variable | key | takes effect |\n|---|---|---|\n".to_owned();
    for setting in Configuration::default().settings() {
        if let Some(variable) = &setting.variable {
            let effect = if setting.takes_effect {
                "yes"
            } else {
                "not yet"
            };
            let _ = writeln!(variables, "| `{variable}` | `{}` | {effect} |", setting.key);
        }
    }
    tables.push(("variables".to_owned(), variables));
    tables
}

fn add_sections(section: &Section, place: &str, tables: &mut Vec<(String, String)>) {
    for key in section.keys {
        if let Some(section) = key.keys() {
            let path = match place {
                "" => key.name().to_owned(),
                place => format!("{place}.{}", key.name()),
            };
            tables.push((path.clone(), table(section, Side::Request)));
            add_sections(section, &path, tables);
        }
    }
}

fn table(section: &Section, side: Side) -> String {
    let mut text = "| key | type | default | meaning |\n|---|---|---|---|\n".to_owned();
    for key in section.keys {
        for cell in key.row(side) {
            let space = if cell.is_empty() { "" } else { " " };
            let _ = write!(text, "|{space}{cell} ");
        }
        text.push_str("|\n");
    }
    text
}
