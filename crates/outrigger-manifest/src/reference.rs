//! The tables of keys in `docs/manifest.md`, as a test compares them with the page.

use std::fmt::Write as _;

use crate::check::Side;
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
